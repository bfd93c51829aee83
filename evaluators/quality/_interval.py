"""Summary of scores as a figure with its 95 % interval."""

from __future__ import annotations

import math

from torch import Tensor

from ..values import Measurement, Split
from ._error import MetricError
from ._metric import Metric

Z95 = 1.959963984540054
"""Quantile of the normal distribution at 97.5 %, for a two-sided interval of 95 %."""


def summarise(scores: Tensor, metric: Metric, split: Split | str, *, keep_samples: bool = False) -> Measurement:
    """Summarise `metric` over `scores` (N,), measured on `split`.

    The interval is Wilson's where the scores are zeros and ones (a share of right answers), else the normal one of the
    mean, mapped through `metric.finish`. One score alone has none: `low` and `high` are then None.
    With `keep_samples` the measurement holds the scores.
    """
    if scores.dim() != 1 or not len(scores):
        raise MetricError(f"{metric.name}: expected scores (N,) with N >= 1, got {tuple(scores.shape)}")
    scores = scores.double()
    n = len(scores)
    value = metric.value(scores)
    low: float | None = None
    high: float | None = None
    if _is_share(scores, metric):
        low, high = wilson(int(scores.sum()), n)
    elif n > 1:
        mean = float(scores.mean())
        half = Z95 * float(scores.std()) / math.sqrt(n)
        low, high = sorted((metric.finish(mean - half), metric.finish(mean + half)))
    return Measurement(
        value=value,
        unit=metric.unit,
        low=low,
        high=high,
        split=split if isinstance(split, str) else split.name,
        n=n,
        samples=tuple(scores.tolist()) if keep_samples else (),
    )


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927): inside [0, 1], and of a sensible width where all are right."""
    share, z2 = successes / n, Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n**2))
    # at the ends the formula gives 0 and 1 exactly; rounding must not leave the value outside of its interval
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == n else min(1.0, middle + half)
    return low, high


def _is_share(scores: Tensor, metric: Metric) -> bool:
    """Tell whether the scores are zeros and ones.

    Without the unit "fraction" both must occur: a squared error of 0 everywhere is no share.
    """
    ones = int((scores == 1).sum())
    zeros = int((scores == 0).sum())
    if ones + zeros < len(scores) or metric.finish(0.25) != 0.25:
        return False
    return metric.unit == "fraction" or (ones > 0 and zeros > 0)
