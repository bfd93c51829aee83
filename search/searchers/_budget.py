"""Costs, limits and first candidates from the sensitivity table alone, before any evaluation."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..._arrays import FloatArray
from ...errors import InputError
from ..allocation import pad, padded, sweep_levels
from ..values import SensitivityTable, non_dominated, spread
from ._base import SearchContext
from ._known import Levels
from ._shrunk_table import proxy_scores

LevelArray: TypeAlias = NDArray[np.int16]
IndexArray: TypeAlias = NDArray[np.int64]

NEAR_LIMIT = 2.0
"""Range of the first sweep, because the sums of the table are rough: it ends at this many times the limit of the
divergence, if there is one, and begins at this many times the indifference threshold."""


class Budget:
    """The static costs of a context. Without a table there are none, everything is allowed, and `first` is empty.

    costs  costs of the objectives, each (groups, most levels) with infinity for absent levels, and their equal mixture.
           If no objective is a static cost, the first cost of the table by name stands in
    """

    def __init__(self, context: SearchContext) -> None:
        self._table = context.table
        self._groups = np.arange(len(context.space))
        self.costs = [] if self._table is None else _sweep_costs(self._table, [o.name for o in context.objectives])
        self._own_costs = self.costs[: len(context.objectives)]
        self._limits: list[tuple[FloatArray, float, float]] = []
        self._scores = np.zeros((0, 0)) if self._table is None else pad(self._table.divergence)
        self._worst = context.limits.get("divergence", (None, None))[1]
        self._indifference_threshold = context.objectives[0].indifference_threshold
        for name, (low, high) in context.limits.items():
            if self._table is not None and name in self._table.costs:
                fixed = self._table.fixed.get(name, 0.0)
                least = -math.inf if low is None else low - fixed
                most = math.inf if high is None else high - fixed
                self._limits.append((pad(self._table.costs[name]), least, most))

    def allowed(self, pool: LevelArray) -> LevelArray:
        """Return the candidates whose static costs keep the limits; all candidates, if none does."""
        keep = self.keeps(pool)
        return pool[keep] if keep.any() else pool

    def keeps(self, pool: LevelArray) -> NDArray[np.bool_]:
        """Return the mask, shape (n,), of the candidates whose static costs keep the limits."""
        keep = np.ones(len(pool), dtype=np.bool_)
        for cost, low, high in self._limits:
            total = cost[self._groups, pool].sum(axis=1)
            keep &= (total >= low) & (total <= high)
        return keep

    def needed(self, pool: LevelArray, scores: FloatArray) -> LevelArray:
        """Remove the candidates below the indifference threshold that cost more than another one below it.

        scores  additive divergences, shape (groups, most levels)
        """
        return pool[self._wanted(pool, scores[self._groups, pool].sum(axis=1))]

    def _wanted(self, pool: LevelArray, divergence: FloatArray) -> NDArray[np.bool_]:
        """Return the mask, shape (n,), of `needed` for predicted divergences of shape (n,)."""
        alike = np.flatnonzero(divergence <= self._indifference_threshold)
        wanted = np.ones(len(pool), dtype=np.bool_)
        if len(alike) > 1:
            costs = np.column_stack([cost[self._groups, pool[alike]].sum(axis=1) for cost in self._own_costs])
            wanted[alike] = non_dominated(costs)
        return wanted

    def within_limits(self, levels: Levels) -> Levels:
        """Return the candidate, made cheaper by single switches until every static cost keeps its limit, if possible.

        Each switch saves most of the excess for the divergence that the table gives it.
        """
        repaired = np.array(levels, dtype=np.int64)
        for cost, _, most in self._limits:
            repaired = lowered(repaired, self._scores, cost, most)
        return tuple(repaired.tolist())

    def first(self, n: int) -> list[Levels]:
        """Return at most n candidates of the sweep, ordered so that any prefix is spread over the whole budget.

        The spread is in log divergence and each cost, so that small divergences, which matter, are not crowded out.
        """
        if self._table is None or not self.costs or n <= 0:
            return []
        return self._spread_sweep(padded(self._table, {})[0], n)

    def first_by_proxy(self, n: int) -> list[list[Levels]]:
        """Return for each proxy of the table at most n candidates of its sweep, as `first` does."""
        if self._table is None or not self.costs or n <= 0:
            return []
        usable = np.isfinite(padded(self._table, {})[0])
        return [self._spread_sweep(np.where(usable, proxy, np.inf), n) for proxy in proxy_scores(self._table)]

    def _spread_sweep(self, scores: FloatArray, n: int) -> list[Levels]:
        """Return at most n candidates of the sweep of these scores, spread over the whole budget."""
        blocks = [sweep_levels(np.where(np.isfinite(cost), scores, np.inf), cost) for cost in self.costs]
        swept = self.allowed(np.unique(np.concatenate(blocks), axis=0).astype(np.int16))
        divergence = np.maximum(scores[self._groups, swept].sum(axis=1), 0.0)
        if self._worst is not None and (near := divergence <= NEAR_LIMIT * self._worst).any():
            swept, divergence = swept[near], divergence[near]
        wanted = self._wanted(swept, divergence / NEAR_LIMIT)
        swept, divergence = swept[wanted], divergence[wanted]
        positive = divergence[divergence > 0]
        floor = max(0.5 * float(positive.min()) if positive.size else 1.0, self._indifference_threshold)
        axes = [np.log(divergence + floor)]
        axes += [cost[self._groups, swept].sum(axis=1) for cost in self._own_costs]
        return [tuple(swept[i].tolist()) for i in spread(np.column_stack(axes), n)]

    def seeds(self, seed_with_sweep: int | bool, usual: int) -> list[Levels]:
        """Return `first` for the option `seed_with_sweep` of a searcher; True means the `usual` number.

        Raises `InputError` for a wrong option, and if there is no table to sweep.
        """
        if not isinstance(seed_with_sweep, int) or seed_with_sweep < 0:
            raise InputError(f"seed_with_sweep must be true, false or a number of points, got {seed_with_sweep!r}")
        if seed_with_sweep and self._table is None:
            raise InputError(
                "seed_with_sweep needs the sensitivity table; let the task measure it, or leave the option out"
            )
        return self.first(usual if seed_with_sweep is True else int(seed_with_sweep))


def lowered(levels: IndexArray, scores: FloatArray, cost: FloatArray, most: float) -> IndexArray:
    """Return the levels, switched one by one until their cost is at most `most`, or no switch is left.

    Each switch has the least harm for its saving, which counts only as far as it is needed.

    scores  divergences, shape (groups, most levels); a score that is not finite counts as the worst
    cost    shape (groups, most levels); an infinite cost is an absent level
    """
    rows, levels = np.arange(len(levels)), levels.copy()
    worst = scores[np.isfinite(scores)].max(initial=0.0)
    scores = np.where(np.isfinite(scores), scores, worst)
    tiny = 1e-9 * max(float(worst), 1e-12)
    while (excess := float(cost[rows, levels].sum()) - most) > 0:
        saved = cost[rows, levels][:, None] - cost
        harm = np.maximum(scores - scores[rows, levels][:, None], tiny)
        worth = np.where(saved > 0, np.minimum(saved, excess) / harm, 0.0)
        g, level = np.unravel_index(int(worth.argmax()), worth.shape)
        if worth[g, level] <= 0:
            break
        levels[g] = level
    return levels


def _sweep_costs(table: SensitivityTable, objectives: list[str]) -> list[FloatArray]:
    """Return the costs to sweep, see `Budget.costs`."""
    names = [name for name in objectives if name in table.costs] or sorted(table.costs)[:1]
    costs = [padded(table, name)[1] for name in names]
    if len(costs) > 1:
        spans = [float(np.ptp(cost[np.isfinite(cost)])) or 1.0 for cost in costs]
        costs.append(np.sum([cost / span for cost, span in zip(costs, spans, strict=True)], axis=0))
    return costs
