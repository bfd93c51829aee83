"""GPTQ: weights are rounded column by column, and each column's error is compensated in the columns that are still
free.

What it does   minimises the error of the layer's *output* on calibration data instead of that of its weights
Paper          Frantar et al. 2023, "GPTQ", alg. 1; with dropped weights: Frantar and Alistarh 2023, "SparseGPT"
We differ      any grid (nearest codeword: integers, palettes, NF4, powers of two); the ranges are fitted with the
               inputs' mean squares as weights; columns in the order of falling mean square (act-order) always, with the
               groups' scales fixed beforehand; grouped convolutions in one batch. The mask of a sparse layer is chosen
               before, by `sparsity_method`, and its error is compensated like that of rounding
Cost           a Cholesky factor of the inputs' moments in float64, and one pass over the columns: all layers of
               ResNet-20 0.3 s a width on one core, after 7 s for the moments of 512 images
Did not help   at 8 bits, where nothing is lost; with half of the weights dropped it recovers little, for a column can
               only be mended by later ones: "descent" recovers most of it
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import WEIGHT, inverse_factor
from ._fit import fit
from ._grid import CONCRETE, Params
from ._problem import Coded, WeightProblem, coded

_BLOCK = 64


def gptq(problem: WeightProblem) -> Coded:
    """Quantize by GPTQ. `problem.moments` None (an embedding) means the identity: then this is plain rounding."""
    params = fit(problem.grid, problem.target, problem.importance)
    return coded(problem, params, compensated(problem, params))


def compensated(problem: WeightProblem, params: Params) -> Tensor:
    """Codewords (R, C) under `params`, chosen column by column."""
    rounder = problem.rounder(params)
    if problem.moments is None or (problem.importance is None and _is_diagonal(problem.moments)):
        return rounder.values(problem.target)
    groups, n = len(problem.moments), problem.shape[1]
    diagonal = problem.moments.diagonal(dim1=1, dim2=2)
    order = diagonal.argsort(dim=1, descending=True, stable=True)  # (g, n)
    factor = inverse_factor(_permuted(problem.moments, order))

    def ordered(values: Tensor) -> Tensor:
        """Reorder (R, C) to columns first, (n, g, rows), in the order of the pass. The results are copies."""
        spread = values.expand(problem.shape).reshape(groups, -1, n)
        return spread.gather(2, order[:, None].expand_as(spread)).permute(2, 0, 1).contiguous()

    work = ordered(problem.matrix)
    scale = ordered(rounder.scale)
    zero = None if rounder.zero is None else ordered(rounder.zero)
    mask = None if problem.mask is None else ordered(problem.mask)
    out = torch.empty_like(work)
    for start in range(0, n, _BLOCK):
        end = min(start + _BLOCK, n)
        errors = torch.empty_like(work[start:end])
        for j in range(start, end):
            column = work[j]
            value = rounder.levels(column / scale[j], None if zero is None else zero[j]).mul_(scale[j])
            if mask is not None:
                value = value.mul_(mask[j])
            out[j] = value
            errors[j - start] = (column - value) / factor[:, j, j, None]
            if j + 1 < end:  # (m, g, 1) * (g, rows)
                work[j + 1 : end] -= factor[:, j, j + 1 : end].T[..., None] * errors[j - start]
        if end < n:
            update = factor[:, start:end, end:].transpose(1, 2) @ errors.transpose(0, 1)  # (g, left, rows)
            work[end:] -= update.transpose(0, 1)
    back = order.argsort(dim=1)
    result = out.permute(1, 2, 0)
    result = result.gather(2, back[:, None].expand_as(result))
    return result.reshape(problem.shape)


def _permuted(matrices: Tensor, order: Tensor) -> Tensor:
    rows = matrices.gather(1, order[:, :, None].expand_as(matrices))
    return rows.gather(2, order[:, None, :].expand_as(matrices))


def _is_diagonal(moments: Tensor) -> bool:
    return not bool((moments - torch.diag_embed(moments.diagonal(dim1=1, dim2=2))).any())


WEIGHT.register("gptq", gptq, formats=CONCRETE, needs="moments")
