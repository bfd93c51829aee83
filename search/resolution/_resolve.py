"""`resolve`: the best candidate for other limits, another budget or another device, from a run's ledger in seconds.

The ledger has the sensitivity table, the costs of each level, and every trial. The table's scores are refitted to the
trials (`_predictor.py`), and a 0-1 programme (`allocation`) finds the best candidate within the limits. That result is
predicted, not measured. Where the best *evaluated* candidate within the same limits is no worse, it is the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..._command import command
from ...errors import InputError, LimitsNotMet
from ...evaluators import Measurement
from ..allocation import TIME_LIMIT_S, Solution
from ..run import StoredRun, read_run
from ..space import config_of
from ..values import SAMPLES, Candidate, Kind, Limits, parse_limits, violation
from ._predictor import Trust
from ._what_if import WhatIf


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The answer for one set of limits: a candidate that was found without evaluating it, or the best trial.

    metrics    name -> predicted divergence and quality (`source` "measured" if it was evaluated), and costs
    config     config for `paredown apply`
    gap        no candidate is better by more than this share, by the refitted table; None where the table foresees no
               candidate within the limits
    status     "optimal" (to 1e-4), "time" if the solver was stopped before, or "evaluated" for a trial that is no worse
               than what the solver found
    seconds    wall clock of the solver
    evaluated  id of the trial that evaluated this candidate; None if there is none
    """

    candidate: Candidate
    config: Mapping[str, Any]
    metrics: Mapping[str, Measurement]
    gap: float | None
    status: Literal["optimal", "time", "evaluated"]
    seconds: float
    evaluated: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON builtins, as in `paredown resolve --json`."""
        return {
            "metrics": _brief(self.metrics),
            "gap": self.gap,
            "status": self.status,
            "seconds": self.seconds,
            "evaluated": self.evaluated,
            "config": dict(self.config),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """The best trial within the limits.

    metrics  quality and divergence as measured on the search split (validation), costs on the device asked for
    """

    candidate: Candidate
    id: str
    kind: Kind
    metrics: Mapping[str, Measurement]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON builtins, as in `paredown resolve --json`."""
        return {"id": self.id, "kind": self.kind, "metrics": _brief(self.metrics)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """The answer of `resolve`.

    points     one point; with a sweep one for each budget, by rising cost
    evaluated  the best trial within the same limits for each point, or None
    limits     name -> (lower or None, upper or None), in absolute figures
    minimised  the metric that was minimised within the limits ("divergence" stands for the best quality)
    profile    name of the hardware profile
    trust      metric -> accuracy of held-out predictions; empty if there are too few trials
    notes      remarks for the user
    """

    run: Path
    points: tuple[Resolved, ...]
    evaluated: tuple[Evaluated | None, ...]
    limits: Limits
    minimised: str
    profile: str
    trust: Mapping[str, Trust]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON of `paredown resolve --json`; docs/json.md lists its keys."""
        return {
            "points": [
                point.to_dict() | {"best_evaluated": best and best.to_dict()}
                for point, best in zip(self.points, self.evaluated, strict=True)
            ],
            "limits": {name: {"min": low, "max": high} for name, (low, high) in self.limits.items()},
            "minimised": self.minimised,
            "profile": self.profile,
            "trust": {name: trust.to_dict() for name, trust in self.trust.items()},
            "notes": list(self.notes),
            "run": str(self.run),
        }


def resolve(
    run: StoredRun | Path | str,
    *,
    limits: str | Sequence[str] | None = None,
    profile: str | Path | None = None,
    sweep: str | None = None,
    points: int = 20,
    time_limit_s: float = TIME_LIMIT_S,
) -> Resolution:
    """Find the best candidate within the limits, by the run's table and trials. Nothing is evaluated.

    run           a run, or its folder
    limits        "bytes<=100000,latency_ms<=0.5", or several such; "bytes<=25%" is a share of the original's. They
                  replace the run's own limits, which hold if none are given
    profile       name or file of another hardware profile, for which `latency_ms` is modelled
    sweep         a cost: the answer has several points between the least and the most of it within the limits
    points        number of points of a sweep
    time_limit_s  limit of the solver's wall clock for each point, in seconds

    The divergence is minimised. If the limits bound the quality or the divergence, the first cost among the run's
    objectives that they leave free is minimised, else the last.

    Each answer is the better one of the candidate that is predicted best and the best evaluated one.

    Raises `LimitsNotMet`, with what is in reach, if no candidate keeps the limits, predicted or evaluated. Raises
    `InputError` for limits that cannot be read, and for a run without a sensitivity table.
    """
    what_if = WhatIf.of(run if isinstance(run, StoredRun) else read_run(run), profile, time_limit_s)
    bounds = what_if.limits if limits is None else parse_limits(limits, what_if.original, what_if.senses)
    if sweep is not None and sweep not in what_if.table.costs:
        raise InputError(f"a sweep is over one of {', '.join(what_if.table.costs)}, got {sweep!r}")
    if not bounds and sweep is None:
        raise InputError(f"the run has no limits of its own: give some ({SAMPLES}), or a sweep")
    for name in bounds:
        if name == what_if.quality.name and not what_if.predictor.can_predict(name):
            raise InputError(
                f"{name} cannot be predicted from {len(what_if.done)} trials; limit the divergence instead, or go on "
                f"with the search: {command('resume', what_if.run.path)}"
            )
    if sweep is not None:
        minimised, found = "divergence", _over_a_sweep(what_if, sweep, points, bounds)
    else:
        minimised = what_if.minimised(bounds)
        found = [_best(what_if, bounds, minimised)]
    taken = ", ".join(dict.fromkeys(str(point.evaluated) for point, _ in found if point.status == "evaluated"))
    notes = [f"taken from the trials, which have nothing worse than what is foreseen: {taken}"] if taken else []
    return Resolution(
        run=what_if.run.path,
        points=tuple(point for point, _ in found),
        evaluated=tuple(best for _, best in found),
        limits=bounds,
        minimised=minimised,
        profile=what_if.profile,
        trust=what_if.predictor.trust,
        notes=(*what_if.notes, *notes),
    )


def _best(what_if: WhatIf, bounds: Limits, minimised: str) -> tuple[Resolved, Evaluated | None]:
    """Return the answer within the limits, and the best evaluated trial. Raises `LimitsNotMet` where there is none."""
    best = _best_evaluated(what_if, bounds, minimised)
    try:
        foreseen = _resolved(what_if, what_if.solve(bounds, minimised))
    except LimitsNotMet:
        if best is None:
            raise
        foreseen = None
    return _better(what_if, foreseen, best, minimised), best


def _over_a_sweep(what_if: WhatIf, cost: str, points: int, bounds: Limits) -> list[tuple[Resolved, Evaluated | None]]:
    """Return the answer for each budget; of budgets with the same answer the first."""
    found: dict[Candidate, tuple[Resolved, Evaluated | None]] = {}
    for solution, own in what_if.sweep(cost, points, bounds):
        best = _best_evaluated(what_if, own, "divergence")
        answer = _better(what_if, _resolved(what_if, solution), best, "divergence")
        found.setdefault(answer.candidate, (answer, best))
    return list(found.values())


def _better(what_if: WhatIf, foreseen: Resolved | None, best: Evaluated | None, minimised: str) -> Resolved:
    """Return the foreseen candidate, or the best evaluated one where that is no worse. One of them is given."""
    if foreseen is not None:
        if best is None or foreseen.evaluated == best.id:
            return foreseen
        if foreseen.metrics[minimised].value < best.metrics[minimised].value:
            return foreseen
    if best is None:
        raise ValueError("expected a foreseen candidate or an evaluated one, got neither")
    return Resolved(
        candidate=best.candidate,
        config=config_of(what_if.space.assignment(best.candidate)),
        metrics=best.metrics,
        gap=None if foreseen is None else foreseen.gap,
        status="evaluated",
        seconds=0.0 if foreseen is None else foreseen.seconds,
        evaluated=best.id,
    )


def _resolved(what_if: WhatIf, solution: Solution) -> Resolved:
    candidate = Candidate(levels=solution.levels)
    assignment = what_if.space.assignment(candidate)
    evaluated = next((f"t{t.number}" for t in what_if.done if t.candidate == candidate), None)
    if all(spec.is_neutral for spec in assignment.values()):
        evaluated = what_if.original_id
    return Resolved(
        candidate=candidate,
        config=config_of(assignment),
        metrics={**what_if.predictor.predict(solution.levels), **what_if.costs_of(candidate)},
        gap=solution.gap,
        status=solution.status,
        seconds=solution.seconds,
        evaluated=evaluated,
    )


def _best_evaluated(what_if: WhatIf, bounds: Limits, minimised: str) -> Evaluated | None:
    """Return the best trial by its measured quality and its costs on this device. The original is no answer."""
    pool = [
        Evaluated(
            candidate=t.candidate,
            id=f"t{t.number}",
            kind=t.kind,
            metrics={**t.metrics, **what_if.costs_of(t.candidate)},
        )
        for t in what_if.done
    ]
    allowed = [one for one in pool if violation(one.metrics, bounds) == 0.0 and minimised in one.metrics]
    return min(allowed, key=lambda one: one.metrics[minimised].value, default=None)


def _brief(metrics: Mapping[str, Measurement]) -> dict[str, Any]:
    keys = ("value", "low", "high", "unit", "source", "split")
    return {name: {key: getattr(m, key) for key in keys} for name, m in metrics.items()}
