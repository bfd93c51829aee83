"""Damped second moments of a layer's inputs, and the factor of their inverse.

An error D of a layer's weight costs trace(D H D'), H = E[x x'] the second moments of its inputs: so H is the Hessian of
the layer's output error. GPTQ, SparseGPT and OBS use its inverse; the other methods that fit a weight to the output use
H with damping.
"""

from __future__ import annotations

import torch
from torch import Tensor

DAMPING = 0.01
"""Damping relative to the mean of the diagonal, for directions that a few samples do not contain."""


def damped(moments: Tensor, damping: float = DAMPING) -> Tensor:
    """Add `damping` times the mean of its diagonal to the diagonal of each matrix in `moments` (groups, n, n).

    A group of zeros counts as one with mean 1.
    """
    mean = moments.diagonal(dim1=1, dim2=2).mean(dim=1)
    mean = torch.where(mean > 0, mean, torch.ones_like(mean))
    return moments + torch.eye(moments.shape[1], dtype=moments.dtype) * (damping * mean)[:, None, None]


def inverse_factor(moments: Tensor) -> Tensor:
    """Upper Cholesky factor (groups, n, n), float32, of the inverse of the damped `moments` (groups, n, n).

    Damping is `DAMPING`, and more where that is not enough.
    """
    h = moments.double()
    damping = DAMPING
    while True:
        lower, failed = torch.linalg.cholesky_ex(damped(h, damping))
        if not bool(failed.any()):
            break
        damping *= 10.0
    inverse = torch.cholesky_inverse(lower)
    # the upper factor of A^-1, by the lower one of A^-1 with both axes turned round
    upper: Tensor = torch.linalg.cholesky(inverse).transpose(1, 2)
    return upper.float()
