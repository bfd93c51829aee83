"""The least additive error for every budget at once: a dynamic programme over buckets of the cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
N_BUCKETS = 10_000


class Programme:
    """DP[g][b] = min over levels s of DP[g-1][b - t_g(s)] + e_g(s), for 10,000 buckets b of the cost above the
    cheapest candidate's (Frantar & Alistarh 2022, SPDY, section 3.2). Costs are rounded up to whole buckets, so a
    solution never exceeds its budget.

    errors, costs  shape (groups, most levels); what is absent is infinite
    """

    def __init__(self, errors: FloatArray, costs: FloatArray, n_buckets: int = N_BUCKETS) -> None:
        self._cheapest = costs.min(axis=1)
        above = costs - self._cheapest[:, None]
        span = float(np.where(np.isfinite(above), above, 0.0).max(axis=1).sum())
        self._unit = span / n_buckets or 1.0
        n_groups, n_levels = costs.shape
        best = np.zeros(n_buckets + 1)
        self._choice = np.zeros((n_groups, n_buckets + 1), dtype=np.int16)
        self._steps = np.full((n_groups, n_levels), -1, dtype=np.int64)
        for g in range(n_groups):
            after = np.full(n_buckets + 1, np.inf)
            for s in np.flatnonzero(np.isfinite(costs[g]) & np.isfinite(errors[g])):
                step = int(np.ceil(above[g, s] / self._unit - 1e-9))
                self._steps[g, s] = step
                if step > n_buckets:
                    continue
                total = best[: n_buckets + 1 - step] + errors[g, s]
                better = total < after[step:]
                after[step:][better] = total[better]
                self._choice[g, step:][better] = s
            best = after
        self._best = best

    def solve(self, budget: float) -> tuple[int, ...] | None:
        """The levels of least error whose costs add up to at most `budget`; None if there are none."""
        at = min(int(np.floor((budget - float(self._cheapest.sum())) / self._unit + 1e-9)), len(self._best) - 1)
        if at < 0 or not np.isfinite(self._best[at]):
            return None
        levels: list[int] = []
        for g in range(len(self._choice) - 1, -1, -1):
            level = int(self._choice[g, at])
            levels.append(level)
            at -= int(self._steps[g, level])
        return tuple(levels[::-1])


def budgets_between(cheapest: float, dearest: float, n: int) -> Sequence[float]:
    """`n` budgets inside the range, evenly on a logarithmic scale."""
    return [float(b) for b in np.geomspace(cheapest, dearest, n + 2)[1:-1]]


def spread(cheapest: float, dearest: float, n: int) -> list[float]:
    """`n` budgets in an order in which any beginning of the list is spread well: halves, quarters, eighths, …"""
    even = budgets_between(cheapest, dearest, n)
    order: list[int] = []
    seen: set[int] = set()
    step = 1 << (n - 1).bit_length()
    while step:
        new = [i for i in range(step - 1, n, step) if i not in seen]
        order += new
        seen.update(new)
        step //= 2
    return [even[i] for i in order]
