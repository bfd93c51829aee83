"""What the sensitivity table knows of a candidate before any evaluation: its costs, its limits, where to begin."""

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

LevelArray: TypeAlias = NDArray[np.int16]
IndexArray: TypeAlias = NDArray[np.int64]

NEAR_LIMIT = 2.0
"""Where the divergence has a limit, the first sweep goes to so many times of it, because the table's sums are rough;
and it begins at so many times what is good enough."""


class Budget:
    """The static costs of a context. Without a table there are none, everything is allowed, and `first` is empty.

    costs  those of the objectives, each (groups, most levels) with infinity for absent levels, and their equal mixture;
           where no objective is a static cost, the table's first by name stands in for the budget
    """

    def __init__(self, context: SearchContext) -> None:
        self._table = context.table
        self._groups = np.arange(len(context.space))
        self.costs = [] if self._table is None else _sweep_costs(self._table, [o.name for o in context.objectives])
        self._own_costs = self.costs[: len(context.objectives)]
        self._limits: list[tuple[FloatArray, float, float]] = []
        self._scores = np.zeros((0, 0)) if self._table is None else pad(self._table.divergence)
        self._worst = context.limits.get("divergence", (None, None))[1]
        self._good_enough = context.objectives[0].indifference_threshold
        for name, (low, high) in context.limits.items():
            if self._table is not None and name in self._table.costs:
                fixed = self._table.fixed.get(name, 0.0)
                least = -math.inf if low is None else low - fixed
                most = math.inf if high is None else high - fixed
                self._limits.append((pad(self._table.costs[name]), least, most))

    def allowed(self, pool: LevelArray) -> LevelArray:
        """Without what breaks a limit by its static costs alone (all of it, where that would leave nothing)."""
        keep = self.keeps(pool)
        return pool[keep] if keep.any() else pool

    def keeps(self, pool: LevelArray) -> NDArray[np.bool_]:
        """Whether each candidate's static costs keep the limits, shape (n,)."""
        keep = np.ones(len(pool), dtype=np.bool_)
        for cost, low, high in self._limits:
            total = cost[self._groups, pool].sum(axis=1)
            keep &= (total >= low) & (total <= high)
        return keep

    def needed(self, pool: LevelArray, scores: FloatArray) -> LevelArray:
        """Without what is better than good enough, and dearer than another that is so too.

        scores  divergences that add up, shape (groups, most levels)
        """
        return pool[self._wanted(pool, scores[self._groups, pool].sum(axis=1))]

    def _wanted(self, pool: LevelArray, divergence: FloatArray) -> NDArray[np.bool_]:
        """Shape (n,), for `needed`; divergence is what is foreseen of each."""
        alike = np.flatnonzero(divergence <= self._good_enough)
        wanted = np.ones(len(pool), dtype=np.bool_)
        if len(alike) > 1:
            costs = np.column_stack([cost[self._groups, pool[alike]].sum(axis=1) for cost in self._own_costs])
            wanted[alike] = non_dominated(costs)
        return wanted

    def within_limits(self, levels: Levels) -> Levels:
        """The candidate, made cheaper by single switches until no static cost is above its limit, as far as that goes.

        Always the switch that saves most (of what is too much) for the divergence that the table gives it.
        """
        repaired = np.array(levels, dtype=np.int64)
        for cost, _, most in self._limits:
            repaired = lowered(repaired, self._scores, cost, most)
        return tuple(repaired.tolist())

    def first(self, n: int) -> list[Levels]:
        """At most n swept candidates, in an order of which every beginning is spread over the whole budget.

        Spread in log divergence and each cost, so that the small divergences, which matter, are not crowded out.
        """
        if self._table is None or not self.costs or n <= 0:
            return []
        scores = padded(self._table, {})[0]
        blocks = [sweep_levels(np.where(np.isfinite(cost), scores, np.inf), cost) for cost in self.costs]
        swept = self.allowed(np.unique(np.concatenate(blocks), axis=0).astype(np.int16))
        divergence = np.maximum(scores[self._groups, swept].sum(axis=1), 0.0)
        if self._worst is not None and (near := divergence <= NEAR_LIMIT * self._worst).any():
            swept, divergence = swept[near], divergence[near]
        wanted = self._wanted(swept, divergence / NEAR_LIMIT)
        swept, divergence = swept[wanted], divergence[wanted]
        positive = divergence[divergence > 0]
        floor = max(0.5 * float(positive.min()) if positive.size else 1.0, self._good_enough)
        axes = [np.log(divergence + floor)]
        axes += [cost[self._groups, swept].sum(axis=1) for cost in self._own_costs]
        return [tuple(swept[i].tolist()) for i in spread(np.column_stack(axes), n)]

    def seeds(self, seed_with_sweep: int | bool, usual: int) -> list[Levels]:
        """`first` as a searcher's option asks for it: True is the usual number. Raises `InputError`."""
        if not isinstance(seed_with_sweep, int) or seed_with_sweep < 0:
            raise InputError(f"seed_with_sweep must be true, false or a number of points, got {seed_with_sweep!r}")
        if seed_with_sweep and self._table is None:
            raise InputError(
                "seed_with_sweep needs the sensitivity table; let the task measure it, or leave the option out"
            )
        return self.first(usual if seed_with_sweep is True else int(seed_with_sweep))


def lowered(levels: IndexArray, scores: FloatArray, cost: FloatArray, most: float) -> IndexArray:
    """The levels, switched one by one towards less cost until its sum is at most `most`, or nothing is left to switch.

    Always the switch of the least harm for what it saves (no more than is needed counts as saved). `scores` and `cost`
    have shape (groups, most levels); an infinite cost is an absent level, a score that is not finite the worst.
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
    names = [name for name in objectives if name in table.costs] or sorted(table.costs)[:1]
    costs = [padded(table, name)[1] for name in names]
    if len(costs) > 1:
        spans = [float(np.ptp(cost[np.isfinite(cost)])) or 1.0 for cost in costs]
        costs.append(np.sum([cost / span for cost, span in zip(costs, spans, strict=True)], axis=0))
    return costs
