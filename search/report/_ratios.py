"""Ratios of a point's cost to the original's, in words: a ratio inside the noise is a tie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...evaluators.latency import TIE
from ..front import NOISY

if TYPE_CHECKING:
    from ..front import Front, Point


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """The original's cost over a point's: 2 is twice as small, or as fast.

    low, high  95 % interval; None where the ratio is exact, or nothing is known of its error
    is_tie     True if the two cannot be told apart
    """

    value: float
    low: float | None = None
    high: float | None = None
    is_tie: bool = False

    @property
    def text(self) -> str:
        """`2.15× [2.13, 2.17]`, `7.28×`, or `tie [0.98, 1.02]`."""
        ratio = "tie" if self.is_tie else f"{_brief(self.value)}×"
        if self.low is None or self.high is None:
            return ratio
        return f"{ratio} [{_brief(self.low)}, {_brief(self.high)}]"


def ratio_of(front: Front, point: Point, name: str) -> Ratio | None:
    """Compare the cost of a point with the original's; None where the two have different sources (modelled, measured).

    A measured latency ties within 3 %, within the run's A/A difference, or where its interval holds 1; and always where
    the A/A test says that latencies mean little. A predicted one ties within 3 %.
    """
    original = next((p for p in front.points if p.kind == "original"), None)
    speedup = point.metrics.get("speedup")
    if name == "latency_ms" and speedup is not None:  # against the original interleaved with it
        floor = front.aa_floor or 0.0
        is_tie = floor > NOISY or _is_within(speedup.value, max(TIE, floor)) or _holds_one(speedup.low, speedup.high)
        return Ratio(value=speedup.value, low=speedup.low, high=speedup.high, is_tie=is_tie)
    theirs, mine = original and original.metrics.get(name), point.metrics.get(name)
    if not theirs or not mine or theirs.source != mine.source or not mine.value or not theirs.value:
        return None
    value = theirs.value / mine.value
    return Ratio(value=value, is_tie=name == "latency_ms" and mine.source != "modelled" and _is_within(value, TIE))


def _is_within(ratio: float, floor: float) -> bool:
    return ratio > 0 and abs(math.log(ratio)) < math.log1p(floor)


def _holds_one(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and low <= 1.0 <= high


def _brief(ratio: float) -> str:
    """Three digits: `0.87`, `2.15`, `21.5`, `215`."""
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}" if ratio < 100 else f"{ratio:.0f}"
