"""Shrinkage of the sensitivity table: measured rows are drawn towards what the gradients say, as far as they are noise.

A row on few samples is noisy, and a sweep picks exactly the rows that came out too low. The gradients' estimate by
single elements has a bias, but hardly any noise. So each row is the posterior mean of its logarithm (empirical Bayes):

    log row  ~  log (a · u_g · estimate),  spread `ROW_SPREAD` around it, and by its standard error around the truth
    u_g          a factor of the group, near 1: `GROUP_SPREAD`
    a            a factor of all rows

A standard error is never taken to be less than the median one of all rows, relative to the row: a row that came out too
low has too low a standard error as well. Where no group can be left alone, every row holds the divergence of the base
too; it is subtracted, and each group gets its own part of it by the estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..._arrays import FloatArray
from ..allocation import pad
from ..values import SearchSpace, SensitivityTable, base_levels

ROW_SPREAD = 0.5
"""Standard deviation of log (measured / estimated) within a group: on ResNet-44 .49 against rows of 128 samples."""
GROUP_SPREAD = 0.5
"""Standard deviation of the group's factor, likewise, without the part that is common to all groups."""
LEAST = 0.25
"""A difference from the base counts as at least so many of its standard errors."""


def shrunk_table(table: SensitivityTable, space: SearchSpace) -> SensitivityTable:
    """Return the table with shrunk divergences. It is the same where there is nothing to shrink to.

    Rows that failed stay infinite. Rows without an estimate, such as those of structure, lose the base's part only.
    """
    if not table.proxies or not table.stderr or not table.n:
        return table
    estimate, value = pad(next(iter(table.proxies.values()))), pad(table.divergence)
    stderr, counts = pad(table.stderr), np.where(np.isfinite(pad(table.n)), pad(table.n), 0.0)
    groups, base = np.arange(len(space)), np.array(base_levels(space))
    measured = (counts > 0) & np.isfinite(value) & np.isfinite(stderr)
    of_base = value[groups, base][measured[groups, base]]
    offset = float(np.median(of_base)) if of_base.size else 0.0
    measured[groups, base] = False
    own = np.where(np.isfinite(estimate[groups, base]), estimate[groups, base], 0.0)
    rise = estimate - own[:, None]
    usable = np.isfinite(rise) & (rise > 0)
    log_rise = np.log(np.where(usable, rise, 1.0))
    apart, variance = _logs(value - offset, stderr, measured & usable)
    factor, seen = apart - log_rise, measured & usable
    whole = _mean(factor[seen], 1.0 / (variance[seen] + ROW_SPREAD**2 + GROUP_SPREAD**2)) if seen.any() else 0.0
    weight = np.where(seen, 1.0 / (variance + ROW_SPREAD**2), 0.0)
    of_group = (weight * np.where(seen, factor - whole, 0.0)).sum(axis=1) / (weight.sum(axis=1) + GROUP_SPREAD**-2)
    prior = log_rise + whole + of_group[:, None]
    trust = np.where(seen, ROW_SPREAD**2 / (ROW_SPREAD**2 + variance), 0.0)
    found = np.exp(prior + trust * np.where(seen, apart - prior, 0.0)) + np.exp(whole) * own[:, None]
    found[groups, base] = np.exp(whole) * own
    plain = ~usable | ~np.isfinite(value)
    plain[groups, base] = ~np.isfinite(estimate[groups, base])
    found = np.where(plain, np.where(counts > 0, np.maximum(value - offset, 0.0), value), found)
    rows = tuple(tuple(row[:n]) for row, n in zip(found.tolist(), space.n_levels, strict=True))
    return replace(table, divergence=rows)


def proxy_scores(table: SensitivityTable) -> list[FloatArray]:
    """Return the table's proxies in the unit of its divergences, each of shape (groups, most levels).

    Where a proxy says nothing it is the divergence itself. Every value is finite: absent levels and those that failed
    have the worst divergence.
    """
    scores = pad(table.divergence)
    usable = np.isfinite(scores)
    scores = np.where(usable, np.maximum(scores, 0.0), scores[usable].max() if usable.any() else 0.0)
    return [_calibrated(proxy, scores) for proxy in table.proxies.values()]


def _calibrated(proxy: Sequence[Sequence[float]], scores: FloatArray) -> FloatArray:
    values = pad(proxy)
    both = np.isfinite(values) & (values > 0) & (scores > 0)
    factor = float(np.median(scores[both] / values[both])) if both.any() else 1.0
    return np.where(np.isfinite(values), values * factor, scores)


def _logs(rise: FloatArray, stderr: FloatArray, seen: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """Return the logarithm of each measured difference from the base, and its variance; both 0 where there is none."""
    error = np.where(seen, stderr, 1.0)
    least = np.where(seen, np.maximum(rise, LEAST * error), 1.0)
    positive = least > 0
    relative = np.where(seen & positive, error / np.where(positive, least, 1.0), 0.0)
    usual = float(np.median(relative[seen])) if seen.any() else 0.0
    variance = np.log1p(np.maximum(relative, usual) ** 2)
    return np.log(np.where(positive, least, 1e-30)), np.where(seen, variance, 0.0)


def _mean(values: FloatArray, weights: FloatArray) -> float:
    return float(np.average(values, weights=weights))
