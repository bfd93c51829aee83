"""`resolve`: the best candidate for other limits, another budget or another device, from a run's ledger in seconds.

The ledger has the sensitivity table, the costs of each level, and every trial. The table's scores are refitted to the
trials (`_predictor.py`), and a 0-1 programme (`allocation`) finds the best candidate within the limits. The result is
predicted, not measured: the best *evaluated* candidate within the same limits stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..._command import command
from ...errors import InputError
from ...evaluators import Measurement
from ..allocation import TIME_LIMIT_S, Solution
from ..run import StoredRun, read_run
from ..space import config_of
from ..values import SAMPLES, Candidate, Kind, Limits, parse_limits, violation
from ._predictor import Trust
from ._what_if import WhatIf


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A candidate that was found without evaluating it.

    metrics    name -> predicted divergence and quality (`source` "measured" if it was evaluated), and costs
    config     config for `paredown apply`
    gap        no candidate is better by more than this share, by the refitted table
    status     "optimal" (to 1e-4), or "time" if the solver was stopped before
    seconds    wall clock of the solver
    evaluated  id of the trial that evaluated this candidate; None if there is none
    """

    candidate: Candidate
    config: Mapping[str, Any]
    metrics: Mapping[str, Measurement]
    gap: float
    status: Literal["optimal", "time"]
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

    Raises `LimitsNotMet`, with what is in reach, if no candidate is predicted to keep the limits. Raises `InputError`
    for limits that cannot be read, and for a run without a sensitivity table.
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
        minimised, found = "divergence", what_if.sweep(sweep, points, bounds)
    else:
        minimised = what_if.minimised(bounds)
        found = [(what_if.solve(bounds, minimised), bounds)]
    return Resolution(
        run=what_if.run.path,
        points=tuple(_resolved(what_if, solution) for solution, _ in found),
        evaluated=tuple(_best_evaluated(what_if, own, minimised) for _, own in found),
        limits=bounds,
        minimised=minimised,
        profile=what_if.profile,
        trust=what_if.predictor.trust,
        notes=what_if.notes,
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
        Evaluated(id=f"t{t.number}", kind=t.kind, metrics={**t.metrics, **what_if.costs_of(t.candidate)})
        for t in what_if.done
    ]
    allowed = [one for one in pool if violation(one.metrics, bounds) == 0.0 and minimised in one.metrics]
    return min(allowed, key=lambda one: one.metrics[minimised].value, default=None)


def _brief(metrics: Mapping[str, Measurement]) -> dict[str, Any]:
    keys = ("value", "low", "high", "unit", "source", "split")
    return {name: {key: getattr(m, key) for key in keys} for name, m in metrics.items()}
