"""Low rank by singular value decomposition.

What it does   W (out, in * kernel) ~ U V, with U (out, r) and V (r, in * kernel): a convolution becomes one of r output
               channels with the old kernel, followed by a 1 x 1 convolution
Paper          Denton et al. 2014, "Exploiting Linear Structure Within Convolutional Networks"; for the matrix, Eckart
               and Young 1936: no U V of this rank is nearer to W in squared error
We differ      each factor takes the square root of the singular values, so that both quantize equally well; signs are
               fixed, so that the result depends on W alone
Cost           one SVD in float64
Did not help   small 3 x 3 convolutions: their spectrum is flat, and bits are the cheaper way to save
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import RANK


def kept_rank(share: float, matrix_shape: tuple[int, int]) -> int:
    """Rank that is kept: the share of the full rank `min(out, n)`, rounded, at least 1."""
    full = min(matrix_shape)
    return max(1, min(full, round(share * full)))


def svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Best approximation of `matrix` (out, n) of this rank: (u (out, rank), v (rank, n)), float32."""
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    left, values, right = signed(left[:, :rank], values[:rank], right[:rank])
    root = values.sqrt()
    return (left * root).float(), (root[:, None] * right).float()


def signed(left: Tensor, values: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Same decomposition with the sign of each pair fixed: the largest entry on the left is positive."""
    pivots = left.abs().argmax(dim=0)
    signs = torch.where(left.gather(0, pivots[None])[0] < 0, -1.0, 1.0)
    return left * signs, values, signs[:, None] * right


def rank_share(rank: int, full: int) -> float:
    """Inverse of `kept_rank`: the share that gives this rank, of a full rank."""
    return max(1, min(rank, full)) / full


def energy_rank(matrix: Tensor, energy: float) -> int:
    """Least rank of `matrix` (out, n) that keeps this share of the squared singular values, in (0, 1]."""
    squares = torch.linalg.svdvals(matrix.double()).square()
    total = float(squares.sum())
    if total == 0.0:
        return 1
    kept = squares.cumsum(dim=0) / total
    return min(len(squares), int((kept < energy - 1e-12).sum()) + 1)


RANK.register("svd", svd)
