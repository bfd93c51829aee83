"""Conversion of scores to a mask, in any pattern.

With the same scores a sparser mask drops everything that a lighter one does: for weights, rows, columns and blocks of
one size at any two shares, for N:M with the same M.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..values import Pattern


def drop_lowest(scores: Tensor, pattern: Pattern, share: float, kernel: int = 1) -> Tensor:
    """Mask (R, C) bool, True where a weight survives. Of equal scores the earlier is dropped first.

    The score of a block is the sum of its weights' scores. `Pattern.n_zeros` gives the number to drop.
    """
    rows, columns = scores.shape
    n_zeros = pattern.n_zeros(share, (rows, columns))
    if pattern.kind == "row":
        return without_least(scores, n_zeros // rows)
    if pattern.kind == "column":
        return without_least(scores.T, n_zeros // columns).T.contiguous()
    if pattern.kind == "n:m":
        grouped = to_channels(scores, kernel).reshape(-1, pattern.m)
        mask = without_least(grouped, pattern.m - pattern.n)
        return from_channels(mask.reshape(rows, kernel, -1))
    if pattern.kind == "block":
        sums = block_sums(scores, pattern, kernel)
        mask = without_least(sums.reshape(1, -1), n_zeros // (pattern.n * pattern.m)).reshape(sums.shape)
        return spread_blocks(mask, pattern)
    return without_least(scores.reshape(1, -1), n_zeros).reshape(scores.shape)


def to_channels(matrix: Tensor, kernel: int) -> Tensor:
    """Reshape (R, inputs * kernel) to (R, kernel, inputs), so that input channels are adjacent."""
    return matrix.reshape(matrix.shape[0], -1, kernel).transpose(1, 2)


def from_channels(view: Tensor) -> Tensor:
    """The inverse of `to_channels`, contiguous."""
    return view.transpose(1, 2).reshape(view.shape[0], -1).contiguous()


def block_sums(scores: Tensor, pattern: Pattern, kernel: int) -> Tensor:
    """Sums (R / n, kernel, inputs / m) over each block of n outputs x m input channels."""
    view = to_channels(scores, kernel)
    rows, _, inputs = view.shape
    return view.reshape(rows // pattern.n, pattern.n, kernel, inputs // pattern.m, pattern.m).sum(dim=(1, 4))


def spread_blocks(blocks: Tensor, pattern: Pattern) -> Tensor:
    """Expand (R / n, kernel, inputs / m) to (R, C): each weight gets its block's value."""
    return from_channels(blocks.repeat_interleave(pattern.n, dim=0).repeat_interleave(pattern.m, dim=2))


def without_least(scores: Tensor, n: int) -> Tensor:
    """Mask of the same shape, bool: False for the n least of each row; of equal ones the earlier first."""
    order = torch.argsort(scores, dim=1, stable=True)
    mask = torch.ones_like(scores, dtype=torch.bool)
    return mask.scatter_(1, order[:, :n], False)
