"""The maths of fronts: pure functions on objectives that are minimised, shape (n points, m objectives).

A row with NaN is no result: it is never non-dominated and adds no volume. Numbers are returned as builtin `int` and
`float`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..._arrays import FloatArray


def non_dominated(objectives: ArrayLike) -> NDArray[np.bool_]:
    """Return the mask, shape (n,), of the rows that no other row dominates (no worse anywhere, better somewhere).

    Equal rows do not dominate each other, so all of them are kept. Rows with NaN are never kept.
    Two objectives take O(n log n); more take O(n · size of the front · m).
    """
    points = _points(objectives)
    mask = np.zeros(len(points), dtype=np.bool_)
    valid = np.flatnonzero(~np.isnan(points).any(axis=1))
    if valid.size == 0:
        return mask
    first, inverse = unique_rows(points[valid])
    unique = points[valid[first]]
    keep = _first_front_2d(unique) if points.shape[1] == 2 else _first_front(unique)
    mask[valid] = keep[inverse]
    return mask


def unique_rows(points: FloatArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the index of the first occurrence of each distinct row, and for each row the number of its distinct row.

    Distinct rows are sorted by the first column, then the next. The result is that of `np.unique(axis=0)`, in a quarter
    of its time for a front's few rows.
    """
    order = np.lexsort(points.T[::-1])
    ordered = points[order]
    begins = np.ones(len(points), dtype=np.bool_)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    inverse = np.empty(len(points), dtype=np.int64)
    inverse[order] = np.cumsum(begins) - 1
    return order[begins], inverse


def fronts(objectives: ArrayLike, enough: int | None = None) -> NDArray[np.int64]:
    """Return the rank of each row, shape (n,): 0 for the front, 1 for the front of the others, and so on.

    Rows with NaN come last, all with the same rank.

    enough  number of ranked rows after which all others get the next rank
    """
    points = _points(objectives)
    ranks = np.zeros(len(points), dtype=np.int64)
    left = np.arange(len(points))
    most = len(points) if enough is None else enough
    rank = 0
    while left.size:
        mask = non_dominated(points[left])
        if not mask.any() or len(points) - left.size >= most:
            mask[:] = True  # only rows with NaN are left, or enough rows are ranked
        ranks[left[mask]] = rank
        left = left[~mask]
        rank += 1
    return ranks


def hypervolume(front: ArrayLike, reference: ArrayLike) -> float:
    """Return the volume that the points dominate within the box that ends at `reference`, shape (m,).

    Points need not be non-dominated. A point that lies beyond the reference in any objective, or has NaN, adds nothing.
    Two objectives take one sweep. More are sliced along the last objective (Zitzler 1999), which is meant for fronts of
    up to some hundreds of points in up to four objectives. Raises `ValueError` for a reference of another length or
    with NaN.
    """
    points = _points(front)
    corner = np.asarray(reference, dtype=np.float64).reshape(-1)
    if points.size and points.shape[1] != corner.size:
        raise ValueError(
            f"reference must have one value for each of the {points.shape[1]} objectives, got {corner.size}; "
            "front has shape (n points, m objectives)"
        )
    if np.isnan(corner).any():
        raise ValueError(f"reference must not hold NaN, got {corner.tolist()}")
    if points.size == 0:
        return 0.0
    inside = points[(points < corner).all(axis=1)]  # False for NaN
    return float(_volume(inside[non_dominated(inside)], corner)) if len(inside) else 0.0


def crowding(objectives: ArrayLike) -> FloatArray:
    """Return the crowding distance of each row, shape (n,) (Deb 2002): the mean side of the box of its neighbours.

    Each objective counts relative to its range. The first and last row along an objective get infinity.
    """
    points = _points(objectives)
    n, m = points.shape
    distance = np.zeros(n)
    if n <= 2:
        return np.full(n, np.inf)
    for j in range(m):
        order = np.argsort(points[:, j], kind="stable")
        values = points[order, j]
        span = values[-1] - values[0]
        distance[order[[0, -1]]] = np.inf
        if span > 0:
            distance[order[1:-1]] += (values[2:] - values[:-2]) / (span * m)
    return distance


def spread(objectives: ArrayLike, n: int) -> list[int]:
    """Return the indices of at most n rows that spread best, in the order of picking: any prefix spreads well too.

    The best row of each objective comes first. Each next row is the one that lies farthest from all that are picked,
    with each objective scaled to its range. Rows with NaN or infinity are never picked, equal rows once.
    """
    points = _points(objectives)
    finite = np.flatnonzero(np.isfinite(points).all(axis=1))
    if n <= 0 or finite.size == 0:
        return []
    scaled = _scaled(points[finite])
    picked: list[int] = []
    nearest = np.full(len(scaled), np.inf)

    def pick(row: int) -> None:
        picked.append(row)
        np.minimum(nearest, ((scaled - scaled[row]) ** 2).sum(axis=1), out=nearest)

    for j in range(scaled.shape[1]):
        ties = np.flatnonzero(scaled[:, j] == scaled[:, j].min())
        row = int(ties[np.argmin(scaled[ties].sum(axis=1))])
        if nearest[row] > 0 and len(picked) < n:
            pick(row)
    while len(picked) < n and nearest.max() > 0:
        pick(int(np.argmax(nearest)))
    return [int(finite[row]) for row in picked]


def knee(objectives: ArrayLike) -> int:
    """Return the index of the knee: the row farthest below the plane through the extremes (Das 1999).

    With each objective scaled to the front's range that plane is Σ = 1, so the knee is the row of the smallest sum.
    Only non-dominated, finite rows are considered. Raises `ValueError` when there is none.
    """
    points = _points(objectives)
    rows = np.flatnonzero(non_dominated(points) & np.isfinite(points).all(axis=1))
    if rows.size == 0:
        raise ValueError("a knee needs at least one row without NaN or infinity, got none")
    return int(rows[np.argmin(_scaled(points[rows]).sum(axis=1))])


def _points(objectives: ArrayLike) -> FloatArray:
    points = np.asarray(objectives, dtype=np.float64)
    if points.ndim == 1 and points.size == 0:
        return points.reshape(0, 1)
    if points.ndim != 2:
        raise ValueError(f"objectives must have shape (n points, m objectives), got shape {points.shape}")
    return points


def _scaled(points: FloatArray) -> FloatArray:
    low = points.min(axis=0)
    span = points.max(axis=0) - low
    return np.asarray((points - low) / np.where(span > 0, span, 1.0))


def _first_front_2d(unique: FloatArray) -> NDArray[np.bool_]:
    """Return the mask of the front of distinct, sorted rows: the second value is below all before it."""
    second = unique[:, 1]
    best_before = np.concatenate(([np.inf], np.minimum.accumulate(second)[:-1]))
    keep: NDArray[np.bool_] = second < best_before
    keep[0] = True
    return keep


def _first_front(unique: FloatArray) -> NDArray[np.bool_]:
    """Return the mask of the front of distinct, sorted rows, of which only an earlier one can dominate a later."""
    keep = np.ones(len(unique), dtype=np.bool_)
    for i in range(len(unique)):
        if keep[i]:
            keep[i + 1 :] &= (unique[i + 1 :] < unique[i]).any(axis=1)
    return keep


def _volume(points: FloatArray, corner: FloatArray) -> float:
    """Return the volume of non-dominated points that lie strictly inside the corner."""
    if len(points) == 0:
        return 0.0
    if points.shape[1] == 1:
        return float(corner[0] - points.min())
    if points.shape[1] == 2:
        ordered = points[np.argsort(points[:, 0], kind="stable")]
        ceilings = np.concatenate(([corner[1]], np.minimum.accumulate(ordered[:, 1])[:-1]))
        return float(((corner[0] - ordered[:, 0]) * np.maximum(ceilings - ordered[:, 1], 0.0)).sum())
    ordered = points[np.argsort(points[:, -1], kind="stable")]
    ends = np.append(ordered[1:, -1], corner[-1])
    total = 0.0
    for i, depth in enumerate(ends - ordered[:, -1]):
        if depth > 0:
            slab = ordered[: i + 1, :-1]
            total += float(depth) * _volume(slab[non_dominated(slab)], corner[:-1])
    return total
