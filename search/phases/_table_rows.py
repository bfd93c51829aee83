"""Choice of the rows to measure: all of them, or so many as the table's share of the budget pays for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..allocation import pad, sweep_levels
from ..evaluation import LevelCosts
from ..run import Guess, Key

USUAL_PART = 0.6
"""Share of a full pass that a row costs where the activations before its group are known."""
LEAST_BLIND = 8
"""Least number of samples of a row without a guess."""


def affordable_rows(
    keys: Sequence[Key], guess: Guess, costs: LevelCosts, names: Sequence[str], *, passes: float, most: int, least: int,
    base: Sequence[int],
) -> tuple[list[Key], int]:  # fmt: skip
    """Return the rows that so many sample passes pay for, and the samples of each: at least `least`, at most `most`.

    Where they do not pay for all rows, one level of each group is measured: the one that the guess's own sweep uses
    most. It tells the direction in which the group moves the outputs, and the factor by which the guess is off there.
    Where they do not even pay for these, the groups with most at stake by the guess are taken, or none. Rows without a
    guess are always measured, if need be on fewer samples, at least `LEAST_BLIND`: nothing else foretells them.

    names  costs that the search looks at
    base   per group: the level that it has while another one is measured; it is no choice for a group's one row
    """
    if (n := int(passes / (USUAL_PART * max(1, len(keys))))) >= least:
        return list(keys), min(n, most)
    blind = [key for key in keys if guess[key[0]][key[1]] is None]
    one = _one_level_each([key for key in keys if key not in blind and key[1] != base[key[0]]], guess, costs, names)
    left = passes - USUAL_PART * least * len(blind)
    if left < USUAL_PART * least * len(one):
        by_stake = sorted(one, key=lambda key: (-(guess[key[0]][key[1]] or 0.0), key))
        one = sorted(by_stake[: max(0, int(left / (USUAL_PART * least)))])
    chosen = sorted([*blind, *one])
    n = int(passes / (USUAL_PART * max(1, len(chosen))))
    return chosen, min(max(n, min(least, LEAST_BLIND)), most)


def _one_level_each(keys: Sequence[Key], guess: Guess, costs: LevelCosts, names: Sequence[str]) -> list[Key]:
    """Return for each group the level that stays longest on the guess's sweep, of any of the costs."""
    scores = pad([[math.inf if value is None else value for value in row] for row in guess])
    stays = np.zeros(scores.shape)
    for name in names:
        cost = pad(costs[name])
        usable = np.isfinite(scores) & np.isfinite(cost)
        if usable.any(axis=1).all():
            swept = sweep_levels(np.where(usable, scores, np.inf), np.where(usable, cost, np.inf), finer=False)
            np.add.at(stays, (np.arange(len(scores)), swept), 1)
    found = []
    for g in dict.fromkeys(key[0] for key in keys):
        levels = [level for h, level in keys if h == g]
        found.append((g, max(levels, key=lambda level: (stays[g, level], level))))
    return found
