"""Magnitude, Wanda and SparseGPT as their papers have them, written from the papers alone, to be no worse than.

Linear layers of a language model: `inputs` (n, columns) is everything that the layer was fed on the calibration data.
Wanda: Sun et al. 2024, eq. 1, compared within each output. SparseGPT: Frantar and Alistarh 2023, alg. 1, blocks of 128,
damping 0.01, columns in their order; dense calibration, one layer at a time with the dense model's inputs, as here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Prune = Callable[[Tensor, Tensor, str], Tensor]


@contextmanager
def watched(model: nn.Module, fqns: tuple[str, ...]) -> Iterator[dict[str, list[Tensor]]]:
    """fqn -> the inputs of that layer, as the model runs."""
    seen: dict[str, list[Tensor]] = {fqn: [] for fqn in fqns}

    def hook(fqn: str) -> Callable[..., None]:
        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            seen[fqn].append(args[0].detach().reshape(-1, args[0].shape[-1]))

        return before

    handles = [model.get_submodule(fqn).register_forward_pre_hook(hook(fqn)) for fqn in fqns]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def magnitude(weight: Tensor, inputs: Tensor, pattern: str) -> Tensor:
    return weight * _keep(weight.abs(), pattern, by_row=False)


def wanda(weight: Tensor, inputs: Tensor, pattern: str) -> Tensor:
    return weight * _keep(weight.abs() * inputs.norm(dim=0), pattern, by_row=True)


def sparsegpt(weight: Tensor, inputs: Tensor, pattern: str) -> Tensor:
    w = weight.double().clone()
    rows, columns = w.shape
    h = 2.0 * inputs.double().T @ inputs.double()
    dead = h.diagonal() == 0
    h[dead, dead] = 1.0
    w[:, dead] = 0.0
    h += 0.01 * h.diagonal().mean() * torch.eye(columns, dtype=torch.float64)
    hinv = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    for i1 in range(0, columns, 128):
        i2 = min(i1 + 128, columns)
        w1, e1, h1 = w[:, i1:i2].clone(), torch.zeros(rows, i2 - i1, dtype=torch.float64), hinv[i1:i2, i1:i2]
        pruned = torch.zeros_like(w1, dtype=torch.bool)
        if not pattern:
            scores = w1.square() / h1.diagonal().square()
            pruned = scores <= scores.flatten().sort().values[int(scores.numel() * 0.5) - 1]
        for i in range(i2 - i1):
            if pattern and i % 4 == 0:
                scores = w1[:, i : i + 4].square() / h1.diagonal()[i : i + 4].square()
                pruned.scatter_(1, i + scores.topk(2, dim=1, largest=False).indices, True)
            q = torch.where(pruned[:, i], 0.0, w1[:, i])
            error = (w1[:, i] - q) / h1[i, i]
            w1[:, i:] -= error[:, None] * h1[i, i:]
            w1[:, i] = q
            e1[:, i] = error
        w[:, i1:i2] = w1
        w[:, i2:] -= e1 @ hinv[i1:i2, i2:]
    return w.float()


def _keep(scores: Tensor, pattern: str, *, by_row: bool) -> Tensor:
    """Half of the weights: of the layer, of each row, or two of every four."""
    if pattern:
        groups = scores.reshape(scores.shape[0], -1, 4)
        return torch.zeros_like(groups).scatter_(2, groups.topk(2, dim=2).indices, 1.0).reshape(scores.shape)
    if by_row:
        return torch.zeros_like(scores).scatter_(1, scores.topk(scores.shape[1] // 2, dim=1).indices, 1.0)
    return (scores > scores.flatten().sort().values[scores.numel() // 2 - 1]).float()


REFERENCES: dict[str, Prune] = {"magnitude": magnitude, "wanda": wanda, "sparsegpt": sparsegpt}
