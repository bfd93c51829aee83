"""Survival of rows: ranks with limits, crowding (NSGA-II), and reference directions (NSGA-III)."""

from __future__ import annotations

from itertools import combinations
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..._arrays import FloatArray
from ..values import crowding, fronts

IndexArray: TypeAlias = NDArray[np.int64]
Survival: TypeAlias = Literal["crowding", "reference"]


def constrained_ranks(values: FloatArray, violation: FloatArray, enough: int | None = None) -> IndexArray:
    """Return the rank of each row, 0 is best: by fronts, with rows that keep the limits before all others.

    Rows that break a limit are ranked among themselves, with the violation as one more objective. For `enough` see
    `fronts`.
    """
    ranks = np.zeros(len(values), dtype=np.int64)
    kept = violation == 0.0
    ranks[kept] = fronts(values[kept], enough)
    if not kept.all():
        first = int(ranks[kept].max()) + 1 if kept.any() else 0
        ranks[~kept] = first + fronts(np.column_stack([values[~kept], violation[~kept]]), enough)
    return ranks


def survivors(values: FloatArray, violation: FloatArray, n: int, how: Survival = "crowding") -> IndexArray:
    """Return the indices of the n rows that survive, best first; all rows if there are no more than n.

    values     shape (rows, objectives), minimised, finite
    violation  shape (rows,): 0 where the limits are kept
    how        rule within the front that does not fit whole: "crowding" (Deb 2002), or "reference" directions
               (Deb & Jain 2014), each of which keeps its nearest rows in turn
    """
    ranks = constrained_ranks(values, violation, n)
    order: list[int] = []
    for rank in range(int(ranks.max()) + 1 if len(ranks) else 0):
        rows = np.flatnonzero(ranks == rank)
        room = n - len(order)
        if room <= 0:
            break
        if how == "reference" and len(rows) > room:
            order += _by_reference(values, np.array(order, dtype=np.int64), rows, room)
        else:
            order += rows[np.lexsort((rows, -crowding(values[rows])))][:room].tolist()
    return np.array(order, dtype=np.int64)


def reference_directions(n_objectives: int, n: int) -> FloatArray:
    """Return at most n points spread evenly over the simplex, shape (points, objectives) (Das & Dennis 1998).

    They are the finest grid that fits, and at least the corners.
    """
    divisions = 1
    while _n_grid(n_objectives, divisions + 1) <= n:
        divisions += 1
    if n_objectives == 1:
        return np.ones((1, 1))
    bars = combinations(range(divisions + n_objectives - 1), n_objectives - 1)
    grid = np.array([np.diff([-1, *bar, divisions + n_objectives - 1]) - 1 for bar in bars], dtype=np.float64)
    return grid / divisions


def _n_grid(n_objectives: int, divisions: int) -> int:
    if n_objectives == 1:
        return divisions
    count = 1
    for i in range(1, n_objectives):
        count = count * (divisions + i) // i
    return count


def _by_reference(values: FloatArray, chosen: IndexArray, rows: IndexArray, room: int) -> list[int]:
    """Pick `room` of the rows: each time the row nearest to the direction that has the fewest so far.

    Where the paper draws lots, the first direction and the nearest row are taken.
    """
    everyone = np.concatenate([chosen, rows])
    low = values[everyone].min(axis=0)
    span = np.ptp(values[rows], axis=0)  # of the last front alone, so that its far outliers do not set the scale
    scaled = (values[everyone] - low) / np.where(span > 0, span, 1.0)
    directions = reference_directions(values.shape[1], max(len(chosen) + room, values.shape[1]))
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    along = scaled @ unit.T
    distance = np.sqrt(np.maximum((scaled**2).sum(axis=1)[:, None] - along**2, 0.0))
    nearest = distance.argmin(axis=1)
    count = np.bincount(nearest[: len(chosen)], minlength=len(unit)).astype(np.float64)
    left: dict[int, list[tuple[float, int]]] = {int(d): [] for d in np.unique(nearest[len(chosen) :])}
    for i in range(len(chosen), len(everyone)):
        left[int(nearest[i])].append((float(distance[i, nearest[i]]), int(everyone[i])))
    for queue in left.values():
        queue.sort(reverse=True)
    picked: list[int] = []
    while len(picked) < room:
        direction = min(left, key=lambda d: (count[d], d))
        picked.append(left[direction].pop()[1])
        count[direction] += 1
        if not left[direction]:
            del left[direction]
    return picked
