"""Two heuristics of a page each, which need no evaluation but those of the front that they propose.

fisher       diagonal empirical Fisher information of 64 samples times the squared change of each weight, greedy by
             bytes: from the dearest candidate, always the step that adds the least score for each byte saved
prismaquant  1/2 (trace of the same Fisher information) x (mean squared change of the weight) for each layer and format,
             and the multiple-choice knapsack of each budget (github.com/RobTand/prismaquant)

Different here: the knapsack is solved by the dynamic programme that the other rivals use, over bytes; the samples are
of the search split. Budgets are proposed in an order in which any beginning is spread well.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..lab import Lab, Levels
from ._gradients import curvature
from ._programme import Programme, spread

MAX_BUDGETS = 500


def fisher(lab: Lab, rng: np.random.Generator) -> None:
    path = greedy(curvature(lab, rng).weighted, lab.costs)
    sizes = np.array([lab.bytes_of(levels) for levels in path])  # falling
    for budget in spread(float(sizes[-1]), float(sizes[0]), MAX_BUDGETS):
        lab.full(path[int(np.flatnonzero(sizes <= budget)[0])])


def prismaquant(lab: Lab, rng: np.random.Generator) -> None:
    programme = Programme(curvature(lab, rng).traced, lab.costs)
    dearest = float(np.where(np.isfinite(lab.costs), lab.costs, 0.0).max(axis=1).sum())
    for budget in spread(float(lab.costs.min(axis=1).sum()), dearest, MAX_BUDGETS):
        if (levels := programme.solve(budget)) is not None:
            lab.full(levels)


def greedy(scores: NDArray[np.float64], costs: NDArray[np.float64]) -> list[Levels]:
    """Candidates from the dearest to the cheapest, each a step of one group from the one before.

    A step may jump over levels. It is the one of least rise of the score for each byte that it saves.
    """
    n_groups = len(costs)
    at = [int(np.where(np.isfinite(costs[g]), costs[g], -np.inf).argmax()) for g in range(n_groups)]
    path = [tuple(at)]
    while True:
        here = np.arange(n_groups)
        saved = costs[here, at][:, None] - costs
        rise = scores - scores[here, at][:, None]
        possible = np.isfinite(costs) & np.isfinite(scores) & (saved > 0.0)
        if not possible.any():
            return path
        rate = np.where(possible, rise / np.where(possible, saved, 1.0), np.inf)
        g, level = np.unravel_index(int(rate.argmin()), rate.shape)
        at[int(g)] = int(level)
        path.append(tuple(at))
