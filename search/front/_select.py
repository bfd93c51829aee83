"""Selection of the trials that become points, and of the baselines that each point is compared with.

Both are chosen on the search split (validation). The report split (test) is looked at once, to measure the chosen
points; nothing is chosen there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..values import Completed, Failed, Kind, Limits, Objective, Trial, non_dominated, spread, vectors, violation
from ._cost_scale import NEAR, SAME, costs_no_more

MAX_VERIFIED = 12
"""Most mixed points of a front, each of which is verified."""
MAX_UNIFORM = 8
"""Most uniform baselines of a front, beside those that points have to beat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The trials that become points.

    mixed      non-dominated mixed trials, by rising cost
    uniform    baselines worth showing, by rising cost
    baselines  number of a mixed trial -> the baseline that it has to beat: the best of those that cost no more
    rivals     number of a mixed trial -> all baselines that must be verified before it can be recommended
    lost       number of a mixed trial -> baselines that failed, and might have been better
    front      numbers of the non-dominated trials, mixed or uniform
    """

    original: Completed | None
    mixed: tuple[Completed, ...]
    uniform: tuple[Completed, ...]
    baselines: Mapping[int, Completed]
    rivals: Mapping[int, tuple[Completed, ...]]
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
    uniform = [t for t in done if is_baseline(t.kind)]
    baselines = {t.number: beaten for t in mixed if (beaten := baseline_of(t, uniform, objectives)) is not None}
    rivals = {t.number: _rivals_of(t, uniform, objectives, guide) for t in mixed}
    seen = {t.candidate for t in uniform}  # a baseline that failed may have been evaluated in another session
    failed = [t for t in trials if isinstance(t, Failed) and is_baseline(t.kind) and t.candidate not in seen]
    shown = _front_of(uniform, objectives)
    if len(shown) > MAX_UNIFORM:
        shown = [shown[i] for i in spread(vectors(shown, objectives), MAX_UNIFORM)]
    shown = list({t.number: t for t in [*shown, *(rival for each in rivals.values() for rival in each)]}.values())
    cost = objectives[-1]
    by_cost = lambda t: (cost.key(t.metrics[cost.name].value), t.number)
    return Selection(
        original=original,
        mixed=tuple(sorted(mixed, key=by_cost)),
        uniform=tuple(sorted(shown, key=by_cost)),
        baselines=baselines,
        rivals=rivals,
        lost={t.number: lost for t in mixed if (lost := _lost_to(t, baselines.get(t.number), failed, objectives))},
        front=frozenset(t.number for t in front),
    )


def _front_of(trials: Sequence[Completed], objectives: Sequence[Objective]) -> list[Completed]:
    """Return the non-dominated trials."""
    if not trials:
        return []
    keep = non_dominated(vectors(trials, objectives))
    return [trial for trial, kept in zip(trials, keep, strict=True) if kept]


def is_baseline(kind: Kind) -> bool:
    """True for a trial that needed no search, and that is not the original."""
    return kind not in ("original", "mixed")


def baseline_of(
    trial: Completed, baselines: Sequence[Completed], objectives: Sequence[Objective], *, slack: float = SAME
) -> Completed | None:
    """Return the best quality among the baselines that cost no more than a trial; None if all cost more.

    Costs are all objectives but the first. A cost within `slack` counts as no more, and a time within `TIE`. Otherwise
    a point that is a thousandth cheaper than the best uniform setting would not have to beat it.
    """
    quality, *costs = objectives
    cheaper = [u for u in baselines if costs_no_more(u.metrics, trial.metrics, costs, slack)]
    return min(cheaper, key=lambda u: (quality.key(u.metrics[quality.name].value), u.number), default=None)


def _rivals_of(
    trial: Completed, baselines: Sequence[Completed], objectives: Sequence[Objective], guide: Sequence[Objective]
) -> tuple[Completed, ...]:
    """Return the baselines to verify for a trial: the best that cost no more, by the metric and by the guide, and the
    best within 10 % more cost."""
    found = (
        baseline_of(trial, baselines, objectives),
        baseline_of(trial, baselines, [guide[0], *objectives[1:]]),
        baseline_of(trial, baselines, objectives, slack=NEAR),
    )
    return tuple({t.number: t for t in found if t is not None}.values())


def _lost_to(
    trial: Completed, baseline: Completed | None, failed: Sequence[Failed], objectives: Sequence[Objective]
) -> tuple[Failed, ...]:
    """Return the failed baselines that might have been better, and cost at most 10 % more.

    No known cost of theirs is higher than that. One that is cheaper than the baseline is taken to be worse.
    """
    found = []
    for rival in failed:
        known = [o for o in objectives[1:] if o.name in rival.metrics]
        if not costs_no_more(rival.metrics, trial.metrics, known, NEAR):
            continue
        is_cheaper = baseline is not None and not costs_no_more(baseline.metrics, rival.metrics, known)
        if baseline is None or not is_cheaper or not costs_no_more(rival.metrics, baseline.metrics, known):
            found.append(rival)
    return tuple(found)
