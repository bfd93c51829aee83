"""Comparison of points by their costs, with the noise of measured times in it.

A time ties with another one where their ratio is within the tie's width, or where their intervals overlap. The width is
3 %, or the largest difference that the run's A/A test found between two loads of one model. Where that is above 10 %,
times mean little and are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...evaluators import Measurement
from ...evaluators.latency import TIE
from ..values import Objective, base_name

NOISY = 0.10
"""A/A difference above which the latencies of a run mean little."""
SAME = 0.01
"""Share by which a cost that is no time may be higher and still count as no higher."""
NEAR = 0.10
"""Share by which a baseline may cost more than a point and still be its neighbour."""
TIMES = ("latency_ms", "ms_per_sample", "throughput")
"""Names of the metrics that are times, or follow from one."""

Metrics = Mapping[str, Measurement]


def is_time(objective: Objective) -> bool:
    """True if the objective is a time, on whatever device."""
    return base_name(objective.name) in TIMES


@dataclass(frozen=True, slots=True, kw_only=True)
class CostScale:
    """The costs among a run's objectives, and how far measured times can be told apart.

    costs  objectives that are costs
    floor  largest relative difference of the run's A/A test; 0 where none was made
    """

    costs: tuple[Objective, ...]
    floor: float = 0.0

    @property
    def is_noisy(self) -> bool:
        """True if the latencies of the run mean little."""
        return self.floor > NOISY

    @property
    def usable(self) -> tuple[Objective, ...]:
        """The costs that tell points apart: all, or all but the times."""
        return tuple(cost for cost in self.costs if not (self.is_noisy and is_time(cost)))

    def excess(self, cost: Objective, one: Metrics, other: Metrics) -> float:
        """Share by which the cost of `one` is above that of `other`; negative below it; 0 for a tie of two times."""
        mine, theirs = one[cost.name], other[cost.name]
        if base_name(cost.name) == cost.name == "latency_ms" and "speedup" in one and "speedup" in other:
            # each against the original that was interleaved with it: the machine may drift between the two
            fast, slow = one["speedup"], other["speedup"]
            mine, theirs = _inverse(fast), _inverse(slow)
        share = _share(cost.key(mine.value), cost.key(theirs.value))
        if is_time(cost) and (abs(share) <= max(TIE, self.floor) or _overlap(mine, theirs)):
            return 0.0
        return share

    def is_within(self, one: Metrics, other: Metrics, slack: float = SAME) -> bool:
        """True if no cost of `one` is above that of `other` by more than the share `slack`."""
        return all(self.excess(cost, one, other) <= slack for cost in self.usable)

    def saving(self, one: Metrics, other: Metrics) -> float:
        """Largest share of a cost of `other` that `one` saves; 0 without costs."""
        return max((-self.excess(cost, one, other) for cost in self.usable), default=0.0)

    def words(self, one: Metrics, other: Metrics) -> str:
        """Costs of `one` beside those of `other`: `bytes -3.1 %, latency_ms tie`."""
        return ", ".join(_words(cost, self.excess(cost, one, other)) for cost in self.usable)

    def is_beaten(self, one: Metrics, by: Metrics, quality: Objective) -> bool:
        """True if `by` is no worse in anything, times within a tie being equal, and better in something."""
        lead = quality.signed(one[quality.name].value) - quality.signed(by[quality.name].value)
        extra = [self.excess(cost, by, one) for cost in self.usable]
        return lead >= 0.0 and all(share <= 0.0 for share in extra) and (lead > 0.0 or any(s < 0.0 for s in extra))


def costs_no_more(one: Metrics, other: Metrics, costs: Sequence[Objective], slack: float = SAME) -> bool:
    """Compare by figures of the search split: no cost of `one` is above that of `other` by more than `slack`, or `TIE`
    for a time, below which times cannot be told apart."""
    for cost in costs:
        share = _share(cost.key(one[cost.name].value), cost.key(other[cost.name].value))
        if not share <= (max(TIE, slack) if is_time(cost) else slack):
            return False
    return True


def _share(mine: float, theirs: float) -> float:
    if mine == theirs:
        return 0.0
    return (mine - theirs) / abs(theirs) if theirs else math.copysign(math.inf, mine - theirs)


def _inverse(speedup: Measurement) -> Measurement:
    """Time relative to the original's; the ends of the interval change places."""
    low, high = (1.0 / end if end else None for end in (speedup.high, speedup.low))
    return Measurement(value=1.0 / speedup.value, low=low, high=high)


def _overlap(one: Measurement, other: Measurement) -> bool:
    """True if both have an interval and the two overlap."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.low <= other.high and other.low <= one.high


def _words(cost: Objective, share: float) -> str:
    if share == 0.0:
        return f"{cost.name} {'tie' if is_time(cost) else 'the same'}"
    more = -share if cost.maximise else share
    return f"{cost.name} {100 * more:+.1f} %"
