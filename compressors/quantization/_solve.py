"""Run of a weight method on a problem, with a check of its result against the protocol."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...errors import SpecError
from ..registry import WEIGHT
from ._adaptive import best_format
from ._affine import code_range
from ._grid import Params, from_groups, to_groups
from ._problem import Coded, WeightProblem, decoded


def knows(method: str, format: str) -> bool:
    """Tell whether the method supports this format. Raises `SpecError` for an unknown method."""
    formats = WEIGHT.formats(method)
    if formats is None:
        return format == "int"
    return format == "adaptive" or format in formats


def solve(problem: WeightProblem, method: str, n_bytes: Callable[[Coded], int]) -> Coded:
    """Quantize the matrix by the registered `method`; `n_bytes` gives the stored size of a result.

    Raises `SpecError` for an answer that breaks the protocol.
    """
    formats = WEIGHT.formats(method)
    if problem.grid.format == "adaptive":
        return best_format(problem, lambda p: _checked(p, method), n_bytes, formats or ())
    return _checked(problem, method) if formats is not None else _simple(problem, method)


def _checked(problem: WeightProblem, method: str) -> Coded:
    coded: Coded = WEIGHT[method](problem)
    wrong = broken_promise(problem, coded)
    if wrong is not None:
        grid = problem.grid
        raise SpecError(f"the weight method {method!r} at {grid.bits} bits ({grid.format}) {wrong}")
    return coded


def broken_promise(problem: WeightProblem, coded: Coded) -> str | None:
    """Violation of the protocol in a result, as a clause; None if there is none."""
    codes, scale = coded.codes, coded.params.scale
    low, high = problem.grid.code_range
    if codes.dtype != torch.int8 or codes.shape != problem.matrix.shape:
        return f"must give int8 codes of shape {problem.shape}, got {codes.dtype} of {tuple(codes.shape)}"
    if int(codes.min()) < low or int(codes.max()) > high:
        return f"must give codes in [{low}, {high}], got some in [{int(codes.min())}, {int(codes.max())}]"
    expected = problem.grid.scale_shape(problem.shape)
    if scale.dtype != torch.float32 or tuple(scale.shape) != expected:
        return f"must give float32 scales of shape {expected}, got {scale.dtype} of {tuple(scale.shape)}"
    if not bool((torch.isfinite(scale) & (scale > 0)).all()):
        return "must give scales that are finite and positive"
    if not torch.equal(problem.grid.stored_scale(scale), scale):
        return "must give scales that FP16 can hold, which is what the spec asks for"
    if problem.mask is not None and bool((decoded(coded)[~problem.mask] != 0).any()):
        return "must leave zeros zero: a dropped weight came back"
    return None


def _simple(problem: WeightProblem, method: str) -> Coded:
    """Run a simple method, of (matrix, bits), with groups as rows."""
    grid, target = problem.grid, problem.target
    rows = to_groups(target, grid)
    codes, scale = WEIGHT[method](rows, grid.bits)
    wrong = _simple_wrong(codes, scale, rows, grid.bits)
    if wrong is not None:
        raise SpecError(f"the weight method {method!r} at {grid.bits} bits {wrong}")
    params = Params(scale=grid.stored_scale(scale.reshape(grid.scale_shape(problem.shape))))
    return Coded(codes=from_groups(codes, grid, problem.shape), params=params, grid=grid)


def _simple_wrong(codes: Tensor, scale: Tensor, matrix: Tensor, bits: int) -> str | None:
    """Violation of the protocol in a simple method's result, as a clause; None if there is none."""
    rows = matrix.shape[0]
    low, high = code_range(bits)
    if codes.dtype != torch.int8 or codes.shape != matrix.shape:
        return f"must give int8 codes of shape {tuple(matrix.shape)}, got {codes.dtype} of {tuple(codes.shape)}"
    if scale.dtype != torch.float32 or tuple(scale.shape) != (rows,):
        return f"must give a float32 scale of shape ({rows},), got {scale.dtype} of {tuple(scale.shape)}"
    if int(codes.min()) < low or int(codes.max()) > high:
        return f"must give codes in [{low}, {high}], got some in [{int(codes.min())}, {int(codes.max())}]"
    if not bool((torch.isfinite(scale) & (scale > 0)).all()):
        return "must give scales that are finite and positive"
    if bool((codes[matrix == 0] != 0).any()):
        return "must leave zeros zero: a dropped weight came back"
    return None
