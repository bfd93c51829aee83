"""Bootstrap over samples, for figures that come from all rows together."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..._arrays import FloatArray
from ._error import MetricError
from ._metric import Metric

_LEAST_SHARE = 0.5
"""Share of the resamples in which the figure must be defined, for an interval to be given."""


def figure_or_nan(metric: Metric, rows: Tensor) -> float:
    """Figure of the rows; NaN where it is not defined (a resample may hold one class only)."""
    try:
        return metric.value(rows)
    except MetricError:
        return float("nan")


def percentile_interval(figures: FloatArray) -> tuple[float, float] | None:
    """95 % percentile interval of resampled figures; None where half of them and more are not defined."""
    defined = figures[np.isfinite(figures)]
    if len(defined) < _LEAST_SHARE * len(figures) or not len(defined):
        return None
    low, high = np.quantile(defined, (0.025, 0.975))
    return float(low), float(high)


def resampled(metric: Metric, rows: Tensor, *, seed: int = 0) -> FloatArray:
    """Figures (R,) of `metric.resamples` draws of as many samples, with replacement. Deterministic."""
    rng, n = np.random.default_rng(seed), len(rows)
    draws = (torch.from_numpy(rng.integers(0, n, n)) for _ in range(metric.resamples))
    return np.asarray([figure_or_nan(metric, rows[draw]) for draw in draws])
