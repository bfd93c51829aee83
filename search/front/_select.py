"""Selection of the trials that become points, and of the uniform baseline that each point has to beat.

Both are chosen on the search split (validation). The report split (test) is looked at once, to measure the chosen
points; nothing is chosen there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...evaluators.latency import TIE
from ..values import Completed, Failed, Limits, Objective, Trial, base_name, non_dominated, spread, vectors, violation

if TYPE_CHECKING:
    from ...evaluators import Measurement

MAX_VERIFIED = 12
"""Most mixed points of a front, each of which is verified."""
MAX_UNIFORM = 8
"""Most uniform baselines of a front, beside those that points have to beat."""
SAME = 0.01
"""Share by which a uniform baseline may cost more than a point and still count as no dearer."""
_TIMES = ("latency_ms", "ms_per_sample", "throughput")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The trials that become points.

    mixed      non-dominated mixed trials, by rising cost
    uniform    uniform baselines worth showing, by rising cost
    baselines  number of a mixed trial -> the uniform trial that it has to beat: the best of those that cost no more
    lost       number of a mixed trial -> uniform trials that failed, and might have been the one to beat
    front      numbers of the non-dominated trials, mixed or uniform
    """

    original: Completed | None
    mixed: tuple[Completed, ...]
    uniform: tuple[Completed, ...]
    baselines: Mapping[int, Completed]
    lost: Mapping[int, tuple[Failed, ...]]
    front: frozenset[int]


def select(
    trials: Sequence[Trial],
    objectives: Sequence[Objective],
    guide: Sequence[Objective],
    limits: Limits,
    *,
    most: int = MAX_VERIFIED,
) -> Selection:
    """Select the points of a front from the completed trials.

    A point is non-dominated twice: in the guide (the divergence, which a lucky draw of the search split moves little),
    and in the objectives of the task.

    most  limit of the number of mixed points
    """
    done = [t for t in trials if isinstance(t, Completed)]
    original = next((t for t in done if t.kind == "original"), None)
    allowed = [t for t in done if t.kind != "original" and violation(t.metrics, limits) == 0.0]
    steady = _front_of(allowed, guide)
    front = _front_of(steady, objectives)
    mixed = [t for t in front if t.kind == "mixed"]
    if len(mixed) > most:
        mixed = [mixed[i] for i in spread(vectors(mixed, objectives), most)]
    uniform = [t for t in done if t.kind == "uniform"]
    baselines = {t.number: beaten for t in mixed if (beaten := baseline_of(t, uniform, objectives)) is not None}
    seen = {t.candidate for t in uniform}  # a baseline that failed may have been evaluated in another session
    failed = [t for t in trials if isinstance(t, Failed) and t.kind == "uniform" and t.candidate not in seen]
    shown = _front_of(uniform, objectives)
    if len(shown) > MAX_UNIFORM:
        shown = [shown[i] for i in spread(vectors(shown, objectives), MAX_UNIFORM)]
    shown = list({t.number: t for t in [*shown, *baselines.values()]}.values())
    cost = objectives[-1]
    by_cost = lambda t: (cost.key(t.metrics[cost.name].value), t.number)
    return Selection(
        original=original,
        mixed=tuple(sorted(mixed, key=by_cost)),
        uniform=tuple(sorted(shown, key=by_cost)),
        baselines=baselines,
        lost={t.number: lost for t in mixed if (lost := _lost_to(t, baselines.get(t.number), failed, objectives))},
        front=frozenset(t.number for t in front),
    )


def _front_of(trials: Sequence[Completed], objectives: Sequence[Objective]) -> list[Completed]:
    """Return the non-dominated trials."""
    if not trials:
        return []
    keep = non_dominated(vectors(trials, objectives))
    return [trial for trial, kept in zip(trials, keep, strict=True) if kept]


def baseline_of(trial: Completed, uniform: Sequence[Completed], objectives: Sequence[Objective]) -> Completed | None:
    """Return the uniform setting that a trial has to beat: the best quality among those that cost no more.

    Costs are all objectives but the first. A cost within `SAME` counts as no more, and a time within `TIE`, below which
    times cannot be told apart. Otherwise a point that is a thousandth cheaper than the best uniform setting would not
    have to beat it. None if every uniform setting costs more.
    """
    quality, *costs = objectives
    cheaper = [u for u in uniform if _costs_no_more(u.metrics, trial.metrics, costs)]
    return min(cheaper, key=lambda u: (quality.key(u.metrics[quality.name].value), u.number), default=None)


def _lost_to(
    trial: Completed, baseline: Completed | None, failed: Sequence[Failed], objectives: Sequence[Objective]
) -> tuple[Failed, ...]:
    """Return the failed baselines that might have been the one to beat.

    No known cost of theirs is higher than the trial's. One that is cheaper than the baseline is taken to be worse.
    """
    found = []
    for rival in failed:
        known = [o for o in objectives[1:] if o.name in rival.metrics]
        if not _costs_no_more(rival.metrics, trial.metrics, known):
            continue
        is_cheaper = baseline is not None and not _costs_no_more(baseline.metrics, rival.metrics, known)
        if baseline is None or not is_cheaper or not _costs_no_more(rival.metrics, baseline.metrics, known):
            found.append(rival)
    return tuple(found)


def _costs_no_more(
    metrics: Mapping[str, Measurement], than: Mapping[str, Measurement], costs: Sequence[Objective]
) -> bool:
    for cost in costs:
        most = cost.key(than[cost.name].value)
        slack = TIE if base_name(cost.name) in _TIMES else SAME
        if not cost.key(metrics[cost.name].value) <= most + slack * abs(most):
            return False
    return True
