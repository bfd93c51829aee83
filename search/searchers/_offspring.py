"""Offspring: new candidates by level switches that keep the budget, single switches, and crossover of neighbours."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..._arrays import FloatArray

LevelArray: TypeAlias = NDArray[np.int16]

PAIR, SINGLE, CROSS = 0, 1, 2
SHARES = (0.5, 0.25, 0.25)
"""Probabilities that a child is made by a pair of switches, one switch, or a crossover."""
JUMP = 0.15
"""Probability that a switch goes to any level instead of the next good one."""


class Steps:
    """Steps from each (group, level): the next good level towards less divergence and towards less cost, and weights.

    The next good level is the steepest: it saves most divergence for the cost, or most cost for the divergence. Without
    a table the neighbours in the level order stand in, with equal weights. Arrays have shape (groups, most levels). A
    level without such a step has weight 0. Weights are square roots of the slopes, so the second best has a chance too.

    n_levels  number of levels of each group, shape (groups,)
    scores    divergences, shape (groups, most levels)
    cost      shape (groups, most levels)
    """

    def __init__(self, n_levels: NDArray[np.int64], scores: FloatArray | None, cost: FloatArray | None) -> None:
        self.n_levels = n_levels
        shape = (len(n_levels), int(n_levels.max()))
        index = np.broadcast_to(np.arange(shape[1]), shape)
        if scores is None or cost is None:
            last = n_levels[:, None] - 1
            self.dearer = np.maximum(index - 1, 0)
            self.cheaper = np.minimum(index + 1, last)
            self.dearer_weight = np.where((index > 0) & (index <= last), 1.0, 0.0)
            self.cheaper_weight = np.where(index < last, 1.0, 0.0)
            self.saving = np.ones(shape)
            self.price = np.ones(shape)
            return
        usable = np.isfinite(cost) & np.isfinite(scores)
        harm = scores[:, None, :] - scores[:, :, None]  # (group, from, to)
        with np.errstate(invalid="ignore"):
            saved = np.where(usable[:, :, None] & usable[:, None, :], cost[:, :, None] - cost[:, None, :], 0.0)
        tiny_harm = 1e-6 * max(float(np.abs(harm).max()), 1e-12)
        down = np.where(saved > 0, saved / np.maximum(harm, tiny_harm), 0.0)
        up = np.where((harm < 0) & (saved < 0), -harm / np.maximum(-saved, 1e-300), 0.0)
        self.cheaper, self.dearer = down.argmax(axis=2), up.argmax(axis=2)
        self.cheaper_weight = np.sqrt(down.max(axis=2))
        self.dearer_weight = np.sqrt(up.max(axis=2))
        self.saving = np.take_along_axis(saved, self.cheaper[:, :, None], axis=2)[:, :, 0]
        self.price = -np.take_along_axis(saved, self.dearer[:, :, None], axis=2)[:, :, 0]


def offspring(parents: LevelArray, partners: LevelArray, steps: Steps, rng: np.random.Generator) -> LevelArray:
    """Return one child of each parent, shape (n, groups). A partner counts only for a crossover."""
    children = parents.copy()
    how = rng.choice(len(SHARES), size=len(parents), p=SHARES)
    cross = np.flatnonzero(how == CROSS)
    if cross.size:
        children[cross] = _crossover(parents[cross], partners[cross], rng)
        # a child equal to one of its parents would be wasted
        same = (children[cross] == parents[cross]).all(axis=1) | (children[cross] == partners[cross]).all(axis=1)
        how[cross[same]] = SINGLE
    pair = np.flatnonzero(how == PAIR)
    if pair.size:
        children[pair] = _switch_pair(children[pair], steps, rng)
    single = np.flatnonzero(how == SINGLE)
    if single.size:
        down = rng.random(single.size) < 0.5
        children[single[down]] = _switch(children[single[down]], steps.cheaper, steps.cheaper_weight, steps, rng)[0]
        children[single[~down]] = _switch(children[single[~down]], steps.dearer, steps.dearer_weight, steps, rng)[0]
    return children


def _crossover(parents: LevelArray, partners: LevelArray, rng: np.random.Generator) -> LevelArray:
    """Return uniform crossovers. The share of the partner is drawn too, so that some children are close to a parent."""
    share = rng.uniform(0.1, 0.9, size=(len(parents), 1))
    return np.where(rng.random(parents.shape) < share, partners, parents)


def _switch_pair(levels: LevelArray, steps: Steps, rng: np.random.Generator) -> LevelArray:
    """Make one group dearer and another cheaper, by about the same cost."""
    levels, g, old = _switch(levels, steps.dearer, steps.dearer_weight, steps, rng)
    paid = np.maximum(steps.price[g, old], 1e-12)[:, None]
    ratio = np.maximum(steps.saving[np.arange(levels.shape[1]), levels], 1e-12) / paid
    changed, _, _ = _switch(
        levels, steps.cheaper, steps.cheaper_weight, steps, rng, bonus=np.minimum(ratio, 1.0 / ratio), avoid=g
    )
    return changed


def _switch(
    levels: LevelArray,
    target: NDArray[np.integer],
    weight: FloatArray,
    steps: Steps,
    rng: np.random.Generator,
    *,
    bonus: FloatArray | None = None,
    avoid: NDArray[np.int64] | None = None,
) -> tuple[LevelArray, NDArray[np.int64], NDArray[np.int16]]:
    """Switch one group of each row, drawn by weight (times bonus). Returns the rows, the groups, their old levels."""
    rows, groups = np.arange(len(levels)), np.arange(levels.shape[1])
    chance = weight[groups, levels]
    if bonus is not None:
        chance *= bonus
    if avoid is not None and len(groups) > 1:
        chance[rows, avoid] = 0.0
    # The first of exponential clocks with these rates rings in proportion to its rate.
    g = (chance / (rng.standard_exponential(size=levels.shape, dtype=np.float32) + 1e-30)).argmax(axis=1)
    stuck = chance[rows, g] <= 0.0
    g[stuck] = rng.integers(0, len(groups), size=int(stuck.sum()))
    old = levels[rows, g]
    jump = stuck | (rng.random(len(levels)) < JUMP)
    anywhere = rng.integers(0, steps.n_levels[g])
    changed = levels.copy()
    changed[rows, g] = np.where(jump, anywhere, target[g, old])
    return changed, g, old
