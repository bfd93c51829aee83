"""Rounding with ranges and palettes fitted by the importance of inputs; and AWQ's clip search.

weighted  least squared error, each weight counted by the mean square of its input (the diagonal of the inputs' second
          moments, which is what Choi et al. 2017 use of the Hessian); for a palette this is weighted k-means
awq       of 40 clips of each group the one of least error of the *output* (Lin et al. 2024, "AWQ", its clip search)
We differ AWQ's other half, scales for each input channel, is left out: they need neighbours to be folded into, or
          stored scales that weigh as much as a bit for each weight of these layers
Cost      weighted: as "affine"; awq: 40 products with the moments, each group's own block of them alone
Did not help  awq where the group is a whole row of a small layer: "gptq" is better at the same bytes; weighted on
          ResNet-8 at 4 bits, where it is behind "affine"
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import WEIGHT
from ._fit import fit
from ._grid import CONCRETE, Params
from ._problem import Coded, WeightProblem, coded, nearest

_CLIPS = 40


def weighted(problem: WeightProblem) -> Coded:
    return nearest(problem, fit(problem.grid, problem.target, problem.importance))


def awq(problem: WeightProblem) -> Coded:
    """Search for clips: multiples of the fitted scales from 0.5 to 1.3."""
    params = fit(problem.grid, problem.target, problem.importance)
    grid, target = problem.grid, problem.target
    best = params.scale
    least = _group_errors(problem, problem.rounder(params).values(target))
    for factor in torch.linspace(0.5, 1.3, _CLIPS).tolist():
        tried = Params(scale=grid.stored_scale(params.scale * factor), zero=params.zero, table=params.table)
        errors = _group_errors(problem, problem.rounder(tried).values(target))
        wins = errors < least
        best, least = torch.where(wins, tried.scale, best), torch.where(wins, errors, least)
    chosen = Params(scale=best, zero=params.zero, table=params.table)
    return coded(problem, chosen, problem.rounder(chosen).values(target))


def _group_errors(problem: WeightProblem, values: Tensor) -> Tensor:
    """Output error of each group's own rounding, in the shape of the scales; other groups are ignored."""
    h = problem.hessian
    d = (values - problem.target).reshape(len(h), -1, problem.shape[1])
    if problem.grid.per_tensor:
        return ((d @ h) * d).sum().reshape(1, 1)
    size = problem.grid.group
    parts = []
    for start in range(0, problem.shape[1], size):
        part = d[:, :, start : start + size]
        block = h[:, start : start + size, start : start + size]
        parts.append(((part @ block) * part).sum(dim=2).reshape(-1))
    errors = torch.stack(parts, dim=1)  # (R, G)
    tall = problem.grid.tall
    return errors if tall == 1 else torch.stack([block.sum(dim=0) for block in errors.split(tall)])


WEIGHT.register("weighted", weighted, formats=CONCRETE, needs="moments")
WEIGHT.register("awq", awq, formats=CONCRETE, needs="moments")
