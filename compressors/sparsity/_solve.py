"""Run of a sparsity method on a problem, with a check of its result against the protocol."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import SpecError
from ..registry import SPARSITY
from ._problem import SparsityProblem


def sparsify(problem: SparsityProblem, method: str) -> tuple[Tensor, Tensor | None]:
    """Return (mask (R, C) bool, True where a weight survives; new values (R, C) of the survivors, None for the old
    ones).

    Raises `SpecError` for an answer that breaks the protocol.
    """
    gives = SPARSITY.gives(method)
    values = None
    if gives == "mask":
        mask = SPARSITY[method](problem.matrix, problem.share)
    elif gives == "scores":
        scores = SPARSITY[method](problem)
        wrong = _wrong_scores(scores, problem)
        if wrong is not None:
            raise SpecError(f"the sparsity method {method!r} {wrong}")
        mask = problem.mask(scores)
    else:
        mask, values = SPARSITY[method](problem)
    wrong = _wrong_mask(mask, problem) or _wrong_values(values, problem)
    if wrong is not None:
        raise SpecError(f"the sparsity method {method!r} {wrong}")
    return mask, values


def _wrong_scores(scores: Tensor, problem: SparsityProblem) -> str | None:
    if scores.shape != problem.matrix.shape or not scores.is_floating_point():
        return f"must give scores of shape {problem.shape}, got {scores.dtype} of {tuple(scores.shape)}"
    if bool(scores.isnan().any()):
        return "gave scores that are NaN"
    return None


def _wrong_mask(mask: Tensor, problem: SparsityProblem) -> str | None:
    if mask.shape != problem.matrix.shape or mask.dtype != torch.bool or int((~mask).sum()) != problem.n_dropped:
        return (
            f"must give a bool mask of shape {problem.shape} with {problem.n_dropped} False, got {mask.dtype} of shape "
            f"{tuple(mask.shape)} with {int((mask == 0).sum())} zeros"
        )
    if problem.pattern.kind and not torch.equal(mask, problem.mask(mask.float())):
        return "must give a mask that keeps the pattern"
    return None


def _wrong_values(values: Tensor | None, problem: SparsityProblem) -> str | None:
    if values is None:
        return None
    if values.shape != problem.matrix.shape or values.dtype != torch.float32 or not bool(values.isfinite().all()):
        return f"must give finite float32 values of shape {problem.shape}, got {values.dtype} of {tuple(values.shape)}"
    return None
