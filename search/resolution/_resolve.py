"""Other limits, another budget, another device: answered from a run's ledger in seconds, without an evaluation.

The ledger has the sensitivity table, what each level costs, and every trial. The table's scores are refitted to the
trials (`_foresight`), and the 0-1 programme (`_programme`) finds the best candidate within the limits. What comes out
is foreseen and not measured: the best *evaluated* candidate within the same limits stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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

    metrics    name -> what is foreseen (`source` "predicted"; "measured" if it was evaluated), and what it costs
    config     as `paredown apply` takes it
    gap        no candidate is better by more than this share, by the refitted table; `status` "time" if the solver
               was stopped before it was sure to 1e-4
    evaluated  the id of the trial that evaluated this very candidate, if there is one
    """

    candidate: Candidate
    config: Mapping[str, Any]
    metrics: Mapping[str, Measurement]
    gap: float
    status: Literal["optimal", "time"]
    seconds: float
    evaluated: str | None

    def to_dict(self) -> dict[str, Any]:
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
    """The best trial within the limits: quality and divergence as measured on the search split, costs as asked."""

    id: str
    kind: Kind
    metrics: Mapping[str, Measurement]

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, "kind": self.kind, "metrics": _brief(self.metrics)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """points    one; with a sweep one for each budget, by rising cost
    evaluated  for each point, the best trial within the same limits, or None
    limits     name -> (lower or None, upper or None), in absolute figures
    minimised  the metric that is as small as the limits allow ("divergence": the quality is as good as they allow)
    trust      metric -> how well held-out trials are foreseen; empty while there are too few
    notes      what else is worth knowing
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
        """The JSON of `paredown resolve --json`; docs/json.md lists its keys."""
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
    """The best candidate within the limits, as far as the run's table and trials can tell. Nothing is evaluated.

    limits   "bytes<=100000,latency_ms<=0.5", or several such; "bytes<=25%" is of the original's. They take the place of
             the run's own, which hold where none are given
    profile  name or file of another hardware profile, for which `latency_ms` is modelled
    sweep    a cost: `points` candidates between the least and the most that it can be within the limits

    The divergence is minimised, or, where the limits speak of the quality, the first cost among the run's objectives
    that they leave free (else the last).
    Raises `LimitsNotMet` where no candidate is foreseen to keep the limits, with what is in reach; `InputError` for
    limits that cannot be read, and for a run without a sensitivity table.
    """
    outlook = WhatIf.of(run if isinstance(run, StoredRun) else read_run(run), profile, time_limit_s)
    bounds = outlook.limits if limits is None else parse_limits(limits, outlook.original, outlook.senses)
    if sweep is not None and sweep not in outlook.table.costs:
        raise InputError(f"a sweep is over one of {', '.join(outlook.table.costs)}, got {sweep!r}")
    if not bounds and sweep is None:
        raise InputError(f"the run has no limits of its own: give some ({SAMPLES}), or a sweep")
    for name in bounds:
        if name == outlook.quality.name and not outlook.foresight.foresees(name):
            raise InputError(
                f"{name} cannot be foreseen from {len(outlook.done)} trials; limit the divergence instead, or go on "
                f"with the search: paredown resume {outlook.run.path}"
            )
    if sweep is not None:
        minimised, found = "divergence", outlook.sweep(sweep, points, bounds)
    else:
        minimised = outlook.minimised(bounds)
        found = [(outlook.solve(bounds, minimised), bounds)]
    return Resolution(
        run=outlook.run.path,
        points=tuple(_resolved(outlook, solution) for solution, _ in found),
        evaluated=tuple(_best_evaluated(outlook, own, minimised) for _, own in found),
        limits=bounds,
        minimised=minimised,
        profile=outlook.profile,
        trust=outlook.foresight.trust,
        notes=outlook.notes,
    )


def _resolved(outlook: WhatIf, solution: Solution) -> Resolved:
    candidate = Candidate(levels=solution.levels)
    assignment = outlook.space.assignment(candidate)
    same = next((f"t{t.number}" for t in outlook.done if t.candidate == candidate), None)
    if all(spec.is_neutral for spec in assignment.values()):
        same = outlook.original_id
    return Resolved(
        candidate=candidate,
        config=config_of(assignment),
        metrics={**outlook.foresight.predict(solution.levels), **outlook.costs_of(candidate)},
        gap=solution.gap,
        status=solution.status,
        seconds=solution.seconds,
        evaluated=same,
    )


def _best_evaluated(outlook: WhatIf, bounds: Limits, minimised: str) -> Evaluated | None:
    """By what was measured, at what it costs on this device. The original is no answer."""
    pool = [
        Evaluated(id=f"t{t.number}", kind=t.kind, metrics={**t.metrics, **outlook.costs_of(t.candidate)})
        for t in outlook.done
    ]
    allowed = [one for one in pool if violation(one.metrics, bounds) == 0.0 and minimised in one.metrics]
    return min(allowed, key=lambda one: one.metrics[minimised].value, default=None)


def _brief(metrics: Mapping[str, Measurement]) -> dict[str, Any]:
    keys = ("value", "low", "high", "unit", "source", "split")
    return {name: {key: getattr(m, key) for key in keys} for name, m in metrics.items()}
