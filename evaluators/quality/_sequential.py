"""Sequential test whether a candidate is surely no better than a rival, after a part of the samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...errors import InputError
from ._error import MetricError
from ._interval import Z95
from ._metric import Metric
from ._paired import is_rising

Floats = NDArray[np.float64]

FIRST = 32
"""Samples before the first look: with fewer, a t quantile says little about differences with heavy tails."""
FIRST_SHARE = 1 / 32
"""Share of the samples before the first look, where that is more."""


def default_looks(total: int) -> tuple[int, ...]:
    """Default looks: after 1/32, 1/16, 1/8, 1/4 and 1/2 of `total` samples, each after at least 32 samples.

    The last look, at `total`, is left out.
    """
    n = max(FIRST, math.ceil(FIRST_SHARE * total))
    looks = []
    while n < total:
        looks.append(n)
        n *= 2
    return tuple(looks)


@dataclass(frozen=True, slots=True, kw_only=True)
class SequentialTest:
    """Sequential test of a candidate's losses against a rival's on the same samples; it says when to stop.

    The hypothesis is that the candidate's mean loss over all samples is below the rival's by at least the share
    `margin` of it. `rejects` says that this is refuted; over all looks that happens to a candidate of which it is true
    with a probability of at most `alpha`, which is shared out evenly between the looks (Bonferroni).

    The samples must stand in random order. The statistic is Student's t of e = candidate - (1 - margin) * rival, with
    the factor for sampling without replacement, and less the shortfall: by how much the rival's mean over the samples
    seen so far lies below its mean over all, which is known. Without that, the test fails where the rival is hurt by a
    few samples that were not seen yet: with log-normal losses (sigma 2) under a lighter candidate, plain t rejects
    wrongly 40 to 49 times in 100; with it, in 30 such settings with 256, 512 and 4,096 samples, at most 2.3 times
    (tests/evaluators/quality/test_sequential.py keeps a few of them). With the losses of 60 random pairs of compressed
    ResNet-20s, scaled so that the hypothesis just holds: 0.8 times in 100 on average (plain t 6 to 9), 8 for the worst
    pair (41). The price is a fifteenth (512 samples) to a seventh (256) of what plain t saves.

    looks   rising counts of samples after which to look; all below `total`
    total   how many samples there are
    margin  0 where losses may be negative, for then a share of the mean says nothing
    """

    looks: tuple[int, ...]
    total: int
    margin: float = 0.05
    alpha: float = 0.05
    _bounds: tuple[float, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if any(not 2 <= n < self.total for n in self.looks) or list(self.looks) != sorted(set(self.looks)):
            raise InputError(f"looks must rise, from at least 2 samples to below {self.total}, got {self.looks}")
        if not 0.0 <= self.margin < 1.0:
            raise InputError(f"the margin must be in [0, 1), got {self.margin:g}: a share of the rival's mean loss")
        if not 0.0 < self.alpha < 1.0:
            raise InputError(f"alpha must be in (0, 1), got {self.alpha:g}: the probability of a wrong rejection")
        # here, and not where it is used: a worker need not import scipy in the middle of its first trial
        each = self.alpha / max(1, len(self.looks))
        object.__setattr__(self, "_bounds", tuple(critical_value(each, n - 1) for n in self.looks))

    def rejects(self, mine: Floats, rival: Floats) -> bool:
        """Tell whether to stop after the losses `mine` (n,) of the first n samples, given the rival's (total,).

        n must be one of the looks. False where anything is not finite.
        """
        n = self._checked(mine, rival)
        if n not in self.looks:
            raise InputError(f"{n} samples is none of the looks {self.looks}, between which alpha is shared out")
        share = 1.0 - self.margin
        apart = mine - share * rival[:n]
        shortfall = share * max(0.0, float(rival.mean() - rival[:n].mean()))
        lead = float(apart.mean()) - shortfall
        error = self._error(apart)
        return bool(lead > self._bounds[self.looks.index(n)] * error)

    def estimate(self, mine: Floats, rival: Floats) -> tuple[float, float, float]:
        """Estimate the candidate's mean over all samples, with a 95 % interval: the rival's known mean plus the mean
        paired difference.

        All three lie between the least and the greatest loss of either.
        """
        n = self._checked(mine, rival)
        apart = mine - rival[:n]
        value = float(rival.mean() + apart.mean())
        half = Z95 * self._error(apart)
        least, most = min(float(mine.min()), float(rival.min())), max(float(mine.max()), float(rival.max()))
        value, low, high = (min(max(v, least), most) for v in (value, value - half, value + half))
        return value, low, high

    def _checked(self, mine: Floats, rival: Floats) -> int:
        if mine.ndim != 1 or rival.shape != (self.total,) or not 2 <= len(mine) <= self.total:
            raise InputError(
                f"expected losses (n,) of at least 2 samples and the rival's ({self.total},), got {mine.shape} and "
                f"{rival.shape}"
            )
        return len(mine)

    def _error(self, apart: Floats) -> float:
        """Standard error of the mean of `apart` (n,), drawn from `total` without replacement."""
        n = len(apart)
        return float(apart.std(ddof=1)) * math.sqrt((1.0 - n / self.total) / n)


def critical_value(alpha: float, freedom: int) -> float:
    """Critical value of Student's t, exceeded with probability `alpha`."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1.0 - alpha))


def losses_of(metric: Metric, scores: Tensor, mean_weight: float = 1.0) -> Floats:
    """Losses (N,) from a metric's rows: the sign is turned where a greater mean score makes the figure better.

    mean_weight  of rows (sum, weight): the mean weight of all samples of the split (`Metric.mean_weight`), by which the
                 sums are divided, so that the mean loss of the whole split corresponds to the figure

    Raises `MetricError` for a figure of the whole data set, which has no losses of samples.
    """
    if not metric.is_mean:
        raise MetricError(f"{metric.name} is a figure of the whole data set; it has no loss for each sample")
    losses = scores if scores.dim() == 1 else scores[:, 0] / mean_weight
    return (-losses if _is_better_above(metric) else losses).detach().cpu().double().numpy()


def value_of_loss(metric: Metric, loss: float) -> float:
    """Figure that a mean loss corresponds to."""
    return metric.finish(-loss if _is_better_above(metric) else loss)


def _is_better_above(metric: Metric) -> bool:
    return is_rising(metric) == metric.maximise
