"""Ranges of weights by plain rules: the full range, a percentile, or the clip of least information loss.

minmax      the largest magnitude is the last step: nothing is clipped (Jacob et al. 2018)
all_codes   the largest magnitude is the one negative code that has no positive twin: the step is finer, and the largest
            positive weights are clipped by one step
percentile  1 % of the largest magnitudes of a group are clipped (McKinstry et al. 2019); none of fewer than 100 weights
entropy     the clip at which the histogram of magnitudes is nearest, by Kullback-Leibler, to its quantized form (Migacz
            2017, "8-bit inference with TensorRT")
We differ   entropy: 512 bins, 40 clips for each group; made for activations, and offered for comparison
Cost        one pass; entropy: 40 passes over the histogram
Did not help  against the least squared error ("affine") all three at 3 bits on the language model and at 4 on ResNet-8.
            On ResNet-20 at 3 bits all three are better than it, and far behind "gptq"
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import WEIGHT
from ._fit import fit_range
from ._grid import CONCRETE, Params
from ._problem import Coded, WeightProblem, nearest

_SHARE = 0.99
_BINS = 512
_CLIPS = 40
_FORMATS = tuple(name for name in CONCRETE if name != "palette")


def minmax(problem: WeightProblem) -> Coded:
    return nearest(problem, fit_range(problem.grid, problem.target, _largest))


def all_codes(problem: WeightProblem) -> Coded:
    low, high = problem.grid.code_range
    widest = fit_range(problem.grid, problem.target, _largest)
    return nearest(problem, Params(scale=problem.grid.stored_scale(widest.scale * (high / -low))))


def percentile(problem: WeightProblem) -> Coded:
    return nearest(problem, fit_range(problem.grid, problem.target, _percentile))


def entropy(problem: WeightProblem) -> Coded:
    n_levels = max(2, 2 ** (problem.grid.bits - 1))
    return nearest(problem, fit_range(problem.grid, problem.target, lambda x: entropy_clip(x, n_levels)))


def _largest(magnitudes: Tensor) -> Tensor:
    return magnitudes.amax(dim=1)


def _percentile(magnitudes: Tensor) -> Tensor:
    """Percentile of the entries that are not zero; the next larger entry where the share falls between two."""
    counts = (magnitudes > 0).sum(dim=1)
    position = (counts.double() * _SHARE).ceil().long().sub_(1).clamp_(min=0)
    place = magnitudes.shape[1] - counts + position
    found = magnitudes.sort(dim=1).values.gather(1, place.clamp_(max=magnitudes.shape[1] - 1)[:, None])[:, 0]
    return torch.where(counts > 0, found, torch.ones_like(found))


def entropy_clip(magnitudes: Tensor, n_levels: int, bins: int = _BINS) -> Tensor:
    """Clip of least divergence, (N,), between each row's histogram and its quantized form, for (N, L) magnitudes."""
    top = magnitudes.amax(dim=1, keepdim=True).clamp(min=1e-30)
    place = (magnitudes / top * bins).long().clamp_(max=bins - 1)
    histogram = torch.zeros(len(magnitudes), bins, dtype=torch.float64)
    histogram.scatter_add_(1, place, (magnitudes > 0).double())
    best = top[:, 0].clone()
    least = torch.full_like(best, torch.inf, dtype=torch.float64)
    for end in torch.linspace(min(bins, max(n_levels, bins // 20)), bins, _CLIPS).long().tolist():
        divergence = _divergence(histogram, end, n_levels)
        wins = divergence <= least
        best = torch.where(wins, top[:, 0] * (end / bins), best)
        least = torch.where(wins, divergence, least)
    return best


def _divergence(histogram: Tensor, end: int, n_levels: int) -> Tensor:
    """KL divergence of the first `end` bins from their quantized form.

    The last bin also counts all clipped values. The quantized form merges the bins into `n_levels` levels and spreads
    these over the bins that are not empty.
    """
    inside = histogram[:, :end]
    p = inside.clone()
    p[:, -1] += histogram[:, end:].sum(dim=1)
    level = (torch.arange(end) * n_levels // end).expand_as(inside)
    sums = torch.zeros(len(p), n_levels, dtype=torch.float64).scatter_add_(1, level, inside)
    filled = torch.zeros_like(sums).scatter_add_(1, level, (inside > 0).double())
    q = torch.where(inside > 0, (sums / filled.clamp(min=1.0)).gather(1, level), 0.0)
    p, q = (x / x.sum(dim=1, keepdim=True).clamp(min=1.0) for x in (p, q))
    return torch.where(p > 0, p * (p.clamp(min=1e-12) / q.clamp(min=1e-4 / end)).log(), 0.0).sum(dim=1)


WEIGHT.register("minmax", minmax, formats=_FORMATS)
WEIGHT.register("all_codes", all_codes, formats=("int",))
WEIGHT.register("percentile", percentile, formats=_FORMATS)
WEIGHT.register("entropy", entropy, formats=_FORMATS)
