"""What the sensitivity table knows of a candidate before any evaluation: its costs, its limits, where to begin."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .._front import spread
from .._sweep import pad, padded, sweep_levels
from ._base import SearchContext, SensitivityTable
from ._known import Levels

FloatArray: TypeAlias = NDArray[np.float64]
LevelArray: TypeAlias = NDArray[np.int16]


class Budget:
    """The static costs of a context. Without a table there are none, everything is allowed, and `first` is empty.

    costs  those of the objectives, each (groups, most levels) with infinity for absent levels, and their equal mixture;
           where no objective is a static cost, the table's first by name stands in for the budget
    """

    def __init__(self, context: SearchContext) -> None:
        self._table = context.table
        self._n_objectives = len(context.objectives)
        self._groups = np.arange(len(context.space))
        self.costs = [] if self._table is None else _sweep_costs(self._table, [o.name for o in context.objectives])
        self._limits: list[tuple[FloatArray, float, float]] = []
        for name, (low, high) in context.limits.items():
            if self._table is not None and name in self._table.costs:
                fixed = self._table.fixed.get(name, 0.0)
                least = -math.inf if low is None else low - fixed
                most = math.inf if high is None else high - fixed
                self._limits.append((pad(self._table.costs[name]), least, most))

    def allowed(self, pool: LevelArray) -> LevelArray:
        """Without what breaks a limit by its static costs alone (all of it, where that would leave nothing)."""
        keep = np.ones(len(pool), dtype=np.bool_)
        for cost, low, high in self._limits:
            total = cost[self._groups, pool].sum(axis=1)
            keep &= (total >= low) & (total <= high)
        return pool[keep] if keep.any() else pool

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
        positive = divergence[divergence > 0]
        floor = 0.5 * float(positive.min()) if positive.size else 1.0
        axes = [np.log(divergence + floor)]
        axes += [cost[self._groups, swept].sum(axis=1) for cost in self.costs[: self._n_objectives]]
        return [tuple(swept[i].tolist()) for i in spread(np.column_stack(axes), n)]


def _sweep_costs(table: SensitivityTable, objectives: list[str]) -> list[FloatArray]:
    names = [name for name in objectives if name in table.costs] or sorted(table.costs)[:1]
    costs = [padded(table, name)[1] for name in names]
    if len(costs) > 1:
        spans = [float(np.ptp(cost[np.isfinite(cost)])) or 1.0 for cost in costs]
        costs.append(np.sum([cost / span for cost, span in zip(costs, spans, strict=True)], axis=0))
    return costs
