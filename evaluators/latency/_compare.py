"""Comparison of two models that were timed together: one is faster, or neither."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...errors import InputError
from ._samples import RANKED_BY, LatencySamples

Verdict = Literal["faster", "slower", "tie"]

TIE = 0.03
"""Relative difference below which two models tie on any machine."""

N_BLOCKS = 10
N_RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Ratio of two latencies.

    ratio      first's latency divided by the second's: 0.5 is twice as fast
    low, high  its 95 % interval; error: its relative standard error
    floor      relative difference below which it is a tie: max(3 %, A/A)
    """

    ratio: float
    low: float
    high: float
    error: float
    floor: float

    @property
    def verdict(self) -> Verdict:
        """Verdict: a tie, unless the ratio is beyond the floor and its interval excludes 1."""
        if abs(math.log(self.ratio)) < math.log1p(self.floor) or self.low <= 1.0 <= self.high:
            return "tie"
        return "faster" if self.ratio < 1.0 else "slower"


def compare(one: LatencySamples, other: LatencySamples, *, floor: float = 0.0) -> Comparison:
    """Compare two models timed by one call of `interleaved`: their n-th runs were neighbours.

    The runs are cut into ten blocks in their order. The ratio is the median over the blocks of the ratio of their p10;
    interval and error are a bootstrap over blocks. A neighbour that comes and goes on the machine spoils some blocks,
    and there both models alike: under two CPU hogs two copies of one model came out 0.7 % apart at the 95th percentile,
    where the ratio of the two whole p10 gave 1.7 % (ResNet-20, OpenVINO, one second each; alone 0.2 %).

    Raises `InputError` where the two have different numbers of runs, and so were not timed together.
    """
    if len(one) != len(other):
        raise InputError(
            f"the two were not timed together: {len(one)} runs of one and {len(other)} of the other; use `interleaved`"
        )
    n_blocks = max(1, min(N_BLOCKS, len(one) // 4))
    a, b = (np.array_split(np.asarray(samples.ms), n_blocks) for samples in (one, other))
    logs = np.array([math.log(_low(x) / _low(y)) for x, y in zip(a, b, strict=True)])
    rng = np.random.default_rng(0)
    means = np.median(logs[rng.integers(0, n_blocks, (N_RESAMPLES, n_blocks))], axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Comparison(
        ratio=float(np.exp(np.median(logs))),
        low=float(np.exp(low)),
        high=float(np.exp(high)),
        error=float(means.std()) if n_blocks > 1 else math.inf,
        floor=max(TIE, floor),
    )


def _low(times: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """Least 10th percentile of a block that the clock can resolve; a time below the clock's resolution is unknown, not
    zero.
    """
    return max(float(np.quantile(times, RANKED_BY / 100)), 1e-9)
