"""Which trials become points, and which of those may be recommended.

Points, and the uniform setting that each must beat, are chosen on the search split. The report split is looked at
once, to say what they are worth; nothing is chosen there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...evaluators.latency import TIE
from ..values import Completed, Limits, Objective, Trial, base_name, non_dominated, spread, vectors, violation

MAX_VERIFIED = 12
MAX_UNIFORM = 8
SAME = 0.01
"""A uniform setting that costs no more than this share above a point has to be beaten by it too."""
_TIMES = ("latency_ms", "ms_per_sample", "throughput")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """original, the points (mixed, non-dominated) and the uniform baselines worth showing, each by rising cost.

    rivals  number of a mixed trial -> the uniform trial that it has to beat: the best of those that cost no more
    front   numbers of the non-dominated trials, mixed or uniform
    """

    original: Completed | None
    mixed: tuple[Completed, ...]
    uniform: tuple[Completed, ...]
    rivals: Mapping[int, Completed]
    front: frozenset[int]


def select(
    trials: Sequence[Trial],
    objectives: Sequence[Objective],
    guide: Sequence[Objective],
    limits: Limits,
    *,
    most: int = MAX_VERIFIED,
) -> Selection:
    """Only completed trials take part: a failed one has no metrics to stand on.

    A point is non-dominated twice: by what the search was guided by (the divergence, which a lucky draw of the search
    split moves little), and by the objectives that were asked for.
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
    rivals = {t.number: rival for t in mixed if (rival := rival_of(t, uniform, objectives)) is not None}
    shown = _front_of(uniform, objectives)
    if len(shown) > MAX_UNIFORM:
        shown = [shown[i] for i in spread(vectors(shown, objectives), MAX_UNIFORM)]
    shown = list({t.number: t for t in [*shown, *rivals.values()]}.values())
    cost = objectives[-1]
    by_cost = lambda t: (cost.key(t.metrics[cost.name].value), t.number)
    return Selection(
        original=original,
        mixed=tuple(sorted(mixed, key=by_cost)),
        uniform=tuple(sorted(shown, key=by_cost)),
        rivals=rivals,
        front=frozenset(t.number for t in front),
    )


def _front_of(trials: Sequence[Completed], objectives: Sequence[Objective]) -> list[Completed]:
    if not trials:
        return []
    keep = non_dominated(vectors(trials, objectives))
    return [trial for trial, kept in zip(trials, keep, strict=True) if kept]


def rival_of(trial: Completed, uniform: Sequence[Completed], objectives: Sequence[Objective]) -> Completed | None:
    """Of the uniform settings that cost no more in any objective but the first, the one of the best quality.

    What costs a hair more counts as no dearer: within `SAME`, and a time within `TIE`, below which none can be told
    apart. Else a point that is a thousandth cheaper than the best uniform setting would not have to beat it.
    """
    quality, *costs = objectives
    mine = vectors([trial], costs)[0] if costs else np.zeros(0)
    slack = np.array([TIE if base_name(o.name) in _TIMES else SAME for o in costs])
    most = mine + slack * np.abs(mine)
    cheaper = [u for u in uniform if not costs or bool((vectors([u], costs)[0] <= most).all())]
    return min(cheaper, key=lambda u: (quality.key(u.metrics[quality.name].value), u.number), default=None)
