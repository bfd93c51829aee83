"""Comparisons that decide whether a point is recommended: with which baselines, on the report split.

Baselines are all verified points that needed no search, whatever they are: uniform settings by any method, sweeps,
thresholds. The original is one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..values import LeastGain, Objective
from ._cost_scale import NEAR, CostScale
from ._front import Point


@dataclass(frozen=True, slots=True, kw_only=True)
class Duel:
    """The baselines that one verified point is compared with. All figures are of verified points.

    rival       the best quality among the baselines that cost no more; None if all cost more
    neighbours  dearer baselines within 10 % more cost whose quality is better
    equal       the cheapest of the dearer baselines whose quality is no worse than the point's by more than is worth
                telling; None if there is none
    cheapest    the baseline that is dearer by the least; None where there is a rival
    original    the original; None if it is not verified
    """

    point: Point
    rival: Point | None
    neighbours: tuple[Point, ...]
    equal: Point | None
    cheapest: Point | None
    original: Point | None

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Numbers of trials (a, b) for each test whether a is better than b."""
        if self.rival is None:
            against = [] if self.original is None else [(self.point, self.original)]
        else:
            better = {p.id: p for p in (*self.neighbours, *([self.equal] if self.equal else []))}
            against = [(self.point, self.rival), *((p, self.point) for p in better.values())]
        return tuple((one.number, other.number) for one, other in against)


def duels_of(points: Sequence[Point], quality: Objective, scale: CostScale, least: LeastGain) -> dict[int, Duel]:
    """Number of a verified mixed point -> its comparisons."""
    verified = [point for point in points if point.verified]
    baselines = [point for point in verified if point.kind != "mixed"]
    return {point.number: _duel(point, baselines, quality, scale, least) for point in verified if point.kind == "mixed"}


def _duel(point: Point, baselines: Sequence[Point], quality: Objective, scale: CostScale, least: LeastGain) -> Duel:
    def lead(one: Point) -> float:
        """Lead of the point over a baseline, in the metric's unit."""
        return quality.signed(one.metrics[quality.name].value) - quality.signed(point.metrics[quality.name].value)

    no_dearer = [one for one in baselines if scale.is_within(one.metrics, point.metrics)]
    dearer = [one for one in baselines if one not in no_dearer]
    near = [one for one in dearer if scale.is_within(one.metrics, point.metrics, NEAR) and lead(one) < 0.0]
    above = [one for one in dearer if scale.is_within(point.metrics, one.metrics)]
    as_good = [one for one in above if lead(one) <= least.over(one.metrics[quality.name].value)]

    def saved(one: Point) -> tuple[float, float, str]:
        return scale.saving(point.metrics, one.metrics), lead(one), one.id

    rival = min(no_dearer, key=lambda one: (lead(one), one.id), default=None)
    return Duel(
        point=point,
        rival=rival,
        neighbours=tuple(near),
        equal=min(as_good, key=saved, default=None),
        cheapest=min(above, key=saved, default=None) if rival is None else None,
        original=next((one for one in baselines if one.kind == "original"), None),
    )
