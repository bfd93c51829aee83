"""Optimal brain surgeon on a layer's output: the cost of dropping a weight when the others compensate for it.

What it does   obs: w^2 / [H^-1]_ii, H the second moments of the inputs. block_obs: the same of what goes together: of a
               block Q the cost w_Q [H^-1]_QQ^-1 w_Q', of N:M the set of M - N weights that costs least together
Paper          Hassibi and Stork 1993; layer by layer: Frantar and Alistarh 2022, "Optimal Brain Compression"; blocks:
               Kurtic et al. 2022, "oBERT" (there with the loss' Fisher information)
We differ      scores only, all from the dense weight: nothing is updated between one weight and the next ("sparsegpt",
               and "refit(obs)", do)
Cost           one inverse of the inputs' moments a layer; for N:M one small solve for each set of M - N (M up to 8;
               beyond it is "obs")
Did not help   by itself: it counts on a repair that does not come, and on ResNet-20 and the Llama of 260 k it is behind
               magnitude or Wanda where nothing is refitted. For 2:4 "block_obs" is the best plain score on both
"""

from __future__ import annotations

from itertools import combinations
from math import comb

import torch
from torch import Tensor

from ..registry import SPARSITY, inverse_factor
from ._patterns import from_channels, to_channels
from ._problem import SparsityProblem

_SETS = 128


def inverse_moments(problem: SparsityProblem) -> Tensor:
    """Inverse (groups, C, C), float64, of the damped moments."""
    if problem.moments is None:
        return torch.eye(problem.shape[1], dtype=torch.float64)[None]
    factor = inverse_factor(problem.moments).double()
    return factor.transpose(1, 2) @ factor


def obs(problem: SparsityProblem) -> Tensor:
    diagonal = inverse_moments(problem).diagonal(dim1=1, dim2=2).float()
    return problem.matrix.square() / diagonal.repeat_interleave(problem.shape[0] // len(diagonal), dim=0)


def block_obs(problem: SparsityProblem) -> Tensor:
    """Scores whose order (or sum over a block) is that of the joint cost; without blocks or N:M those of `obs`."""
    pattern, kernel = problem.pattern, problem.kernel
    drop = pattern.m - pattern.n if pattern.kind == "n:m" else pattern.m
    if pattern.kind not in ("n:m", "block") or (pattern.kind == "n:m" and comb(pattern.m, drop) > _SETS):
        return obs(problem)
    inverse = inverse_moments(problem)
    rows, columns = problem.shape
    per_group = rows // len(inverse)
    inputs = columns // kernel
    weights = to_channels(problem.matrix, kernel).double()  # (R, kernel, inputs)
    scores = torch.zeros_like(weights)
    for k in range(kernel):
        for start in range(0, inputs, pattern.m):
            places = torch.arange(start, start + pattern.m) * kernel + k
            block = inverse[:, places[:, None], places].repeat_interleave(per_group, dim=0)  # (R, m, m)
            w = weights[:, k, start : start + pattern.m]
            found = _joint(w, block) if pattern.kind == "block" else _best_set(w, block, drop)
            scores[:, k, start : start + pattern.m] = found
    return from_channels(scores).float()


def _joint(w: Tensor, block: Tensor) -> Tensor:
    """Equal shares (R, m) of w B^-1 w' for each weight of the row's part of the block."""
    cost: Tensor = (w * torch.linalg.solve(block, w[..., None])[..., 0]).sum(dim=1, keepdim=True)
    return cost.expand_as(w) / w.shape[1]


def _best_set(w: Tensor, block: Tensor, drop: int) -> Tensor:
    """Choice of the cheapest set in each group, (R, m): 0 for its members, 1 for the others."""
    sets = torch.tensor(list(combinations(range(w.shape[1]), drop)))
    costs = torch.stack([_joint(w[:, q], block[:, q[:, None], q]).sum(dim=1) for q in sets], dim=1)
    return torch.ones_like(w).scatter_(1, sets[costs.argmin(dim=1)], 0.0)


SPARSITY.register("obs", obs, gives="scores", needs="moments")
SPARSITY.register("block_obs", block_obs, gives="scores", needs="moments")
