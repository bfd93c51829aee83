"""The least that codes and positions could take: their entropies, in bytes.

Codes: of those that are not zero, the zero-order entropy of their histogram. Positions: of several descriptions of the
pattern the shortest, so that a structure that is there is not overlooked: each entry by itself; rows or columns of so
many; groups of M with so many (N:M); blocks; diagonals. Counts are charged at their entropy too, tables are not.
"""

from __future__ import annotations

from math import lgamma, log

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
_LN2 = log(2.0)


def entropy_bits(values: NDArray[np.integer]) -> float:
    """Of all the values together."""
    _, counts = np.unique(values, return_counts=True)
    return float(counts @ np.log2(counts.sum() / counts)) if len(counts) else 0.0


def flags_bits(n_set: int, n: int) -> float:
    """n flags, each set with the share that is set."""
    share = n_set / n if n else 0.0
    return 0.0 if share in (0.0, 1.0) else -n * (share * np.log2(share) + (1 - share) * np.log2(1 - share))


def position_bits(mask: Mask) -> dict[str, float]:
    """Description -> bits."""
    found = {"entries": flags_bits(int(mask.sum()), mask.size)}
    for name, counts, size in (("rows", mask.sum(axis=1), mask.shape[1]), ("columns", mask.sum(axis=0), mask.shape[0])):
        found[name] = entropy_bits(counts) + _chosen(counts, size)
    for m in (2, 4, 8, 16):
        if mask.shape[1] % m == 0:
            counts = mask.reshape(-1, m).sum(axis=1)
            found[f"groups of {m}"] = entropy_bits(counts) + _chosen(counts, m)
    for rows, columns in ((1, 4), (1, 9), (4, 4), (8, 8)):
        if mask.shape[0] % rows == 0 and mask.shape[1] % columns == 0:
            blocks = mask.reshape(mask.shape[0] // rows, rows, -1, columns).any(axis=(1, 3))
            inside = int(blocks.sum()) * rows * columns
            found[f"blocks of {rows} x {columns}"] = _lines(blocks) + flags_bits(int(mask.sum()), inside)
    diagonals = np.array([np.count_nonzero(np.diagonal(mask, k)) for k in range(1 - mask.shape[0], mask.shape[1])])
    lengths = np.array([len(np.diagonal(mask, k)) for k in range(1 - mask.shape[0], mask.shape[1])])
    found["diagonals"] = flags_bits(int((diagonals > 0).sum()), len(diagonals)) + flags_bits(
        int(mask.sum()), int(lengths[diagonals > 0].sum())
    )
    return found


def _lines(mask: Mask) -> float:
    """Entries by themselves, or whole rows or columns of them."""
    ways = [flags_bits(int(mask.sum()), mask.size)]
    for lines, size in ((mask.any(axis=1), mask.shape[1]), (mask.any(axis=0), mask.shape[0])):
        inside = int(lines.sum()) * size
        ways.append(flags_bits(int(lines.sum()), len(lines)) + flags_bits(int(mask.sum()), inside))
    return min(ways)


def _chosen(counts: NDArray[np.integer], size: int) -> float:
    """Which of `size`, where it is known how many."""
    return sum(lgamma(size + 1) - lgamma(k + 1) - lgamma(size - k + 1) for k in counts.tolist()) / _LN2
