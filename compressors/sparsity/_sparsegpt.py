"""SparseGPT: weights are dropped column by column, and the error is compensated in the columns that are still free.

What it does   chooses, block of columns by block, the weights whose loss costs least of the layer's output, w^2 /
               U_jj^2, and moves the error of each dropped one to the later columns
Paper          Frantar and Alistarh 2023, "SparseGPT: Massive Language Models Can be Accurately Pruned in One-Shot",
               alg. 1
We differ      every pattern: N:M chooses when its group begins, as there, along the input channels; rows, columns and
               blocks within their bounds. With fewer bits the weight method quantizes the mended weight on its mask,
               so that "gptq" and "descent" make up for rounding in a second pass (the paper drops and rounds in one).
               An output that mending has made worse keeps its old weights
Cost           a Cholesky factor of the inputs' moments in float64, and one pass over the columns
Did not help   small layers: "refit(wanda)" or "refit(obs)", which end at the best weights on their mask, are as good or
               better there. Levels are not nested: the mended weights of two sparsities differ
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import SPARSITY, inverse_factor
from ._patterns import drop_lowest, without_least
from ._problem import SparsityProblem

_BLOCK = 128


def sparsegpt(problem: SparsityProblem) -> tuple[Tensor, Tensor]:
    """Return (mask, values), both (R, C). Without moments nothing can be compensated: then it drops by magnitude."""
    if problem.moments is None:
        return problem.mask(problem.matrix.abs()), problem.matrix.clone()
    rows, columns = problem.shape
    order = _order(problem)
    moments = problem.moments[:, order][:, :, order]
    factor = inverse_factor(moments)  # (g, C, C), upper
    work = problem.matrix[:, order].reshape(len(moments), -1, columns).permute(2, 0, 1).contiguous()  # (C, g, rows)
    mask = torch.ones_like(work, dtype=torch.bool)
    pattern = problem.pattern
    width = _BLOCK // pattern.m * pattern.m if 0 < pattern.m <= _BLOCK else pattern.m or _BLOCK
    for start in range(0, columns, width):
        end = min(start + width, columns)
        if pattern.kind not in ("n:m", "column"):
            mask[start:end] = _chosen(problem, work, factor, start, end)
        errors = torch.empty_like(work[start:end])
        for j in range(start, end):
            if pattern.kind == "column":
                mask[j : j + 1] = _of_columns(problem, work, factor, j, j + 1)
            elif pattern.kind == "n:m" and (j - start) % pattern.m == 0:
                mask[j : j + pattern.m] = _of_columns(problem, work, factor, j, j + pattern.m)
            column = work[j]
            value = column * mask[j]
            errors[j - start] = (column - value) / factor[:, j, j, None]
            work[j] = value
            if j + 1 < end:
                work[j + 1 : end] -= factor[:, j, j + 1 : end].T[..., None] * errors[j - start]
        if end < columns:
            update = factor[:, start:end, end:].transpose(1, 2) @ errors.transpose(0, 1)  # (g, left, rows)
            work[end:] -= update.transpose(0, 1)
    back = order.argsort()
    mask, work = (x.permute(1, 2, 0).reshape(rows, columns)[:, back].contiguous() for x in (mask, work))
    return mask, problem.no_worse(mask, work)


def _order(problem: SparsityProblem) -> Tensor:
    """Columns in the order of the pass; where a pattern runs along input channels, these are adjacent."""
    columns, kernel = problem.shape[1], problem.kernel
    if problem.pattern.kind not in ("n:m", "block"):
        return torch.arange(columns)
    return torch.arange(columns).reshape(-1, kernel).T.reshape(-1)


def _scores(work: Tensor, factor: Tensor, start: int, end: int) -> Tensor:
    """Scores (R, end - start) of a block of columns."""
    diagonal = factor.diagonal(dim1=1, dim2=2)[:, start:end].T  # (b, g)
    scores = (work[start:end] / diagonal[..., None]).square()
    return scores.permute(1, 2, 0).reshape(-1, end - start)


def _columns_first(mask: Tensor, like: Tensor) -> Tensor:
    return mask.reshape(like.shape[1], -1, mask.shape[1]).permute(2, 0, 1)


def _of_columns(problem: SparsityProblem, work: Tensor, factor: Tensor, start: int, end: int) -> Tensor:
    """Mask of one column, or of one group of N:M, by the pattern itself."""
    mask = drop_lowest(_scores(work, factor, start, end), problem.pattern, problem.share)
    return _columns_first(mask, work)


def _chosen(problem: SparsityProblem, work: Tensor, factor: Tensor, start: int, end: int) -> Tensor:
    """Mask of a block of columns, with its part of all zeros, so that the blocks add up to the requested share."""
    scores, pattern, columns = _scores(work, factor, start, end), problem.pattern, problem.shape[1]
    unit = problem.shape[0] if pattern.kind == "row" else pattern.n * pattern.m if pattern.kind == "block" else 1
    total = problem.n_dropped // unit
    n = round(total * end / columns) - round(total * start / columns)
    if pattern.kind == "row":
        return _columns_first(without_least(scores, n), work)
    if pattern.kind == "block":
        tiles = scores.reshape(-1, pattern.n, scores.shape[1] // pattern.m, pattern.m).sum(dim=(1, 3))
        kept = without_least(tiles.reshape(1, -1), n).reshape(tiles.shape)
        return _columns_first(kept.repeat_interleave(pattern.n, 0).repeat_interleave(pattern.m, 1), work)
    return _columns_first(without_least(scores.reshape(1, -1), n).reshape(scores.shape), work)


SPARSITY.register("sparsegpt", sparsegpt, gives="weights", needs="moments")
