"""Unstructured magnitude sparsity, layer by layer.

What it does   drops the weights of least magnitude of one matrix
Paper          Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks"
We differ      no retraining here, and the share is set for each layer by the search, not by one global threshold
Cost           one sort
Did not help   latency: no runtime that we export to runs unstructured zeros faster on a CPU. It saves bytes only, and
               those only where a sparse format is smaller than dense codes (at 4 bits: beyond 25 % zeros)
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._registry import SPARSITY


def n_zeros(share: float, numel: int) -> int:
    """How many of `numel` weights are dropped: the nearest whole number, but at least one survives."""
    return max(0, min(numel - 1, round(share * numel)))


def magnitude(matrix: Tensor, share: float) -> Tensor:
    """Mask of `matrix`'s shape, True where a weight survives. Of equal magnitudes, the earlier is dropped first."""
    flat = matrix.abs().reshape(-1)
    order = torch.argsort(flat, stable=True)
    mask = torch.ones_like(flat, dtype=torch.bool)
    mask[order[: n_zeros(share, flat.numel())]] = False
    return mask.reshape(matrix.shape)


SPARSITY.register("magnitude", magnitude)
