"""Choice of the models to measure next, and of the pool to choose from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ._features import Forms
from ._fit import Fitted


def draw(levels: Sequence[int], n: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Draw `n` candidates, one level for each group, that a search could reach.

    levels  how many each group has

    Drawn level by level they would all be alike: half of everything. So each has its own taste (a Dirichlet draw over
    the levels' positions), and half of them go on with the last group's level for a while.
    """
    most = max(levels)
    found = []
    for _ in range(n):
        taste = rng.dirichlet(np.full(most, float(rng.choice([0.2, 0.6, 2.0]))))
        keeps = float(rng.choice([0.0, 0.0, 0.5, 0.8]))
        row: list[int] = []
        for count in levels:
            position = min(int(rng.choice(most, p=taste)), most - 1)
            level = position if count == most else int(position * count / most)
            row.append(row[-1] if row and row[-1] < count and rng.random() < keeps else level)
        found.append(tuple(row))
    return found


def next_to_measure(fitted: Fitted, pool: Sequence[Forms], n: int) -> list[int]:
    """Indices of the `n` models of the pool that leave the least uncertainty over the whole pool, one after another.

    MacKay (1992) and Cohn (1996): what is minimised is the mean relative variance of all predictions, not that of the
    chosen one alone, which would seek out oddities.
    """
    mean, covariance = fitted.covariance(pool)
    covariance = covariance / np.outer(mean, mean)
    noise = fitted.scales["noise"] ** 2
    chosen: list[int] = []
    for _ in range(min(n, len(pool))):
        gain = (covariance**2).sum(axis=0) / (np.diag(covariance) + noise)
        gain[chosen] = -np.inf
        best = int(np.argmax(gain))
        chosen.append(best)
        column = covariance[:, best].copy()
        covariance -= np.outer(column, column) / (covariance[best, best] + noise)
    return chosen
