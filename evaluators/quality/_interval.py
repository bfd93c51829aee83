"""Summary of scores as a figure with its 95 % interval."""

from __future__ import annotations

import math

from torch import Tensor

from ..values import Measurement, Split
from ._bootstrap import percentile_interval, resampled
from ._error import MetricError
from ._metric import Metric

Z95 = 1.959963984540054
"""Quantile of the normal distribution at 97.5 %, for a two-sided interval of 95 %."""


def summarise(scores: Tensor, metric: Metric, split: Split | str, *, keep_samples: bool = False) -> Measurement:
    """Summarise `metric` over its rows, (N,) or (N, K), measured on `split`.

    The interval is Wilson's where the scores are zeros and ones (a share of right answers), else the normal one of the
    mean (for rows (sum, weight) that of the ratio, by its linearisation), mapped through `metric.finish`. A figure of
    the whole data set gets the bootstrap over samples, from `metric.resamples` draws. The interval holds the value and
    stays in `metric.range`. One sample alone has none, nor has a figure that most resamples leave undefined: `low` and
    `high` are then None. With `keep_samples` the measurement holds the scores, where they are (N,).
    """
    has_rows = metric.aggregate is not None or metric.weight is not None
    if not len(scores.shape) or not len(scores) or scores.dim() > (2 if has_rows else 1):
        raise MetricError(f"{metric.name}: expected scores (N,) with N >= 1, got {tuple(scores.shape)}")
    rows = metric.compact(scores.double())
    value = metric.value(rows)
    ends = _interval(rows, metric)
    low, high = (None, None) if ends is None else within(metric, value, *ends)
    return Measurement(
        value=value,
        unit=metric.unit,
        low=low,
        high=high,
        split=split if isinstance(split, str) else split.name,
        n=len(rows),
        samples=tuple(rows.tolist()) if keep_samples and rows.dim() == 1 else (),
    )


def within(metric: Metric, value: float, low: float, high: float) -> tuple[float, float]:
    """Interval cut to the metric's range, and widened to hold the value."""
    least, most = metric.range
    return min(value, max(low, least)), max(value, min(high, most))


def _interval(rows: Tensor, metric: Metric) -> tuple[float, float] | None:
    n = len(rows)
    if rows.dim() == 1 and metric.is_mean and _is_share(rows, metric):
        return wilson(int(rows.sum()), n)
    if n == 1:
        return None
    if metric.is_mean:
        mean = metric.mean(rows)
        low, high = sorted(metric.finish(mean + sign * Z95 * _error(rows, mean)) for sign in (-1, 1))
        if math.isfinite(low) and math.isfinite(high):
            return low, high
    return percentile_interval(resampled(metric, rows))


def _error(rows: Tensor, mean: float) -> float:
    """Standard error of the mean of scores (N,), or of the ratio of the sums of rows (N, 2)."""
    n = len(rows)
    if rows.dim() == 1:
        return float(rows.std()) / math.sqrt(n)
    apart = rows[:, 0] - mean * rows[:, 1]
    return float(apart.square().sum().div(n - 1).sqrt()) / math.sqrt(n) / float(rows[:, 1].mean())


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
