"""Paired test whether one model is better than another on the same samples, beyond noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._bootstrap import figure_or_nan, percentile_interval
from ._error import MetricError
from ._metric import Metric

Floats = NDArray[np.float64]
N_FLIPS = 9_999
N_RESAMPLES = 2_000
EXACT_UP_TO = 14
"""Largest number of differing samples for which all 2**n sign flips are counted (more than `N_FLIPS`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedResult:
    """Difference between two models, a and b.

    difference  in the metric's unit; positive where a is *better*, whatever the metric's direction
    low, high   95 % bootstrap interval of it, over samples
    p_value     one-sided: how often chance alone would put a at least as far ahead; small means that a is better
    """

    difference: float
    low: float
    high: float
    p_value: float


def paired_test(scores_a: Tensor, scores_b: Tensor, metric: Metric, *, seed: int = 0) -> PairedResult:
    """Compare two models by their rows, (N,) or (N, K), on the same N samples in the same order. Deterministic.

    The p-value of a mean is that of the sign-flip (permutation) test of the mean paired difference: under "a is no
    better", each sample's difference is as likely to have the other sign. It is exact where all differences are of one
    size (0/1 scores; that is McNemar's exact test) or few samples differ, else from 9,999 seeded draws, of which the
    observed one counts as one (Phipson & Smyth 2010), so that it is never 0. Where no sample differs it is 1. Of a
    figure of the whole data set it comes from swapping the rows of the two models, for each sample at random,
    `metric.resamples` times.
    """
    a, b = (metric.compact(scores.detach().cpu().double()) for scores in (scores_a, scores_b))
    most_axes = 2 if metric.weight is not None or metric.aggregate is not None else 1
    if not 1 <= a.dim() <= most_axes or a.shape != b.shape or not len(a):
        raise MetricError(
            f"paired test: expected two score tensors (N,) of the same samples, got {tuple(scores_a.shape)} "
            f"and {tuple(scores_b.shape)}"
        )
    if not (bool(torch.isfinite(a).all()) and bool(torch.isfinite(b).all())):
        raise MetricError("paired test: every score must be finite")
    if a.dim() == 2 and not (metric.is_mean and torch.equal(a[:, 1], b[:, 1])):
        return _by_rows(a, b, metric, np.random.default_rng(seed))
    weight: Floats | None = None if a.dim() == 1 else a[:, 1].numpy()
    mine, theirs = ((rows if rows.dim() == 1 else rows[:, 0]).numpy() for rows in (a, b))
    sign = 1.0 if metric.maximise else -1.0
    rng = np.random.default_rng(seed)
    difference = sign * (metric.value(a) - metric.value(b))
    lead = (mine - theirs) * (1.0 if is_rising(metric) == metric.maximise else -1.0)
    p_value = _sign_flip(lead[lead != 0.0], rng)
    low, high = _bootstrap(mine, theirs, weight, metric, sign, rng)
    return PairedResult(difference=difference, low=min(low, difference), high=max(high, difference), p_value=p_value)


def _by_rows(a: Tensor, b: Tensor, metric: Metric, rng: np.random.Generator) -> PairedResult:
    """Paired test of a figure of all rows: swaps for the p-value, the bootstrap over samples for the interval.

    Raises `MetricError` where the figure of either model is not defined.
    """
    n, sign = len(a), 1.0 if metric.maximise else -1.0
    difference = sign * (metric.value(a) - metric.value(b))
    differs = bool((a != b).any())
    at_least, leads = 0, []
    for _ in range(metric.resamples if differs else 0):
        swap = torch.from_numpy(rng.integers(0, 2, (n, 1)).astype(bool))
        swapped = figure_or_nan(metric, torch.where(swap, b, a)) - figure_or_nan(metric, torch.where(swap, a, b))
        at_least += not sign * swapped < difference - 1e-12  # an undefined figure speaks against a
        draw = torch.from_numpy(rng.integers(0, n, n))
        leads.append(sign * (figure_or_nan(metric, a[draw]) - figure_or_nan(metric, b[draw])))
    low, high = percentile_interval(np.asarray(leads)) or ((-math.inf, math.inf) if differs else (0.0, 0.0))
    least, most = metric.range
    return PairedResult(
        difference=difference,
        low=min(max(low, least - most), difference),
        high=max(min(high, most - least), difference),
        p_value=(1 + at_least) / (1 + metric.resamples) if differs else 1.0,
    )


def is_rising(metric: Metric) -> bool:
    """Tell whether a greater mean score gives a greater figure (a signal-to-noise ratio of a squared error does
    not).
    """
    return metric.finish(0.75) >= metric.finish(0.25)


def _sign_flip(lead: Floats, rng: np.random.Generator) -> float:
    n = len(lead)
    if n == 0:
        return 1.0
    sizes = np.abs(lead)
    if (sizes == sizes[0]).all():
        wins = int((lead > 0).sum())
        return _binomial_tail(wins, n)
    observed = lead.sum()
    slack = 1e-12 * sizes.sum()  # a sum in another order may round to less
    if n <= EXACT_UP_TO:
        patterns = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return float(((1 - 2 * patterns) @ sizes >= observed - slack).mean())
    at_least = sum(int((signs @ sizes >= observed - slack).sum()) for signs in _random_signs(N_FLIPS, n, rng))
    return (1 + at_least) / (1 + N_FLIPS)


def _random_signs(rows: int, columns: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Rows of random ±1, `rows` in total, a few at a time (at most 16 MiB)."""
    step = max(1, (1 << 21) // columns)
    for start in range(0, rows, step):
        shape = (min(step, rows - start), columns)
        yield rng.integers(0, 2, shape, dtype=np.int8).astype(np.float64) * 2.0 - 1.0


def _binomial_tail(wins: int, n: int) -> float:
    """Probability of at least `wins` heads in `n` throws of a fair coin."""
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2.0) for k in range(wins, n + 1)
    ]
    return min(1.0, math.fsum(math.exp(value) for value in logs))


def _bootstrap(
    a: Floats, b: Floats, weight: Floats | None, metric: Metric, sign: float, rng: np.random.Generator
) -> tuple[float, float]:
    n = len(a)
    step = max(1, (1 << 20) // n)
    leads: list[float] = []
    for start in range(0, N_RESAMPLES, step):
        index = rng.integers(0, n, (min(step, N_RESAMPLES - start), n))
        scale = 1.0 if weight is None else weight[index].mean(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):  # a draw of samples without weight gives NaN
            means = zip(a[index].mean(axis=1) / scale, b[index].mean(axis=1) / scale, strict=True)
        for mean_a, mean_b in means:
            leads.append(sign * (metric.finish(float(mean_a)) - metric.finish(float(mean_b))))
    found = np.asarray(leads)
    low, high = np.quantile(found if weight is None else found[np.isfinite(found)], (0.025, 0.975))
    return float(low), float(high)
