"""Picks: the points of a front that have a name of their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..values import Limits, Objective, knee, violation
from ._cost_scale import CostScale
from ._front import Point


def picks_of(
    points: Sequence[Point], objectives: Sequence[Objective], limits: Limits, scale: CostScale
) -> dict[str, str]:
    """Return name of a pick -> point id, by verified figures.

    Picks are starred points. Where nothing is starred, they are the best of all verified points within the limits,
    baselines included; before any point is verified, mixed points of the front. No pick stands beside another verified
    point within the limits that is no worse in anything and better in something; a name for which none is left is
    absent.

    best      best quality; of equals the cheapest
    smallest  fewest bytes; of equals the best quality
    fastest   lowest latency; of those that tie with it the best quality. Absent where latencies mean little
    knee      the point farthest below the plane through the ends of the front
    """
    rivals = [p for p in points if p.verified and p.kind != "original" and violation(p.metrics, limits) == 0.0]
    starred = [p for p in rivals if p.recommended]
    pool = starred or rivals
    if not any(p.verified for p in points):
        pool = rivals = [p for p in points if p.kind == "mixed" and p.on_front]
    if not pool:
        return {}
    quality, *costs = objectives
    sizes = CostScale(costs=(Objective(name="bytes"),), floor=scale.floor)
    times = CostScale(costs=(Objective(name="latency_ms"),), floor=scale.floor)

    def loss(point: Point) -> float:
        return quality.signed(point.metrics[quality.name].value)

    picks: dict[str, str] = {}
    if front := _unbeaten(pool, rivals, CostScale(costs=tuple(costs), floor=scale.floor), quality):
        table = np.array([[o.key(p.metrics[o.name].value) for o in objectives] for p in front])
        picks["knee"] = front[knee(table)].id if costs else min(front, key=lambda p: (loss(p), p.id)).id
    if small := _unbeaten(pool, rivals, sizes, quality):
        picks["smallest"] = min(small, key=lambda p: (p.metrics["bytes"].value, loss(p), p.id)).id
    is_timed = not scale.is_noisy and all("latency_ms" in p.metrics for p in rivals)
    if is_timed and (fast := _unbeaten(pool, rivals, times, quality)):
        first = min(fast, key=lambda p: (_relative_time(p), p.id))
        ties = [p for p in fast if times.is_within(p.metrics, first.metrics, 0.0)]
        picks["fastest"] = min(ties, key=lambda p: (loss(p), _relative_time(p), p.id)).id
    if front:
        last = objectives[-1]
        picks["best"] = min(front, key=lambda p: (loss(p), last.key(p.metrics[last.name].value), p.id)).id
    return picks


def _unbeaten(pool: Sequence[Point], rivals: Sequence[Point], scale: CostScale, quality: Objective) -> Sequence[Point]:
    """The points that no rival beats in quality and these costs."""
    return [p for p in pool if not any(scale.is_beaten(p.metrics, other.metrics, quality) for other in rivals)]


def _relative_time(point: Point) -> float:
    """Latency, as a share of the original's where the two were timed together."""
    speedup = point.metrics.get("speedup")
    return point.metrics["latency_ms"].value if speedup is None else 1.0 / speedup.value
