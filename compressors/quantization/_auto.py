"""The default: for each row of a layer the range or the rounding of least error of the layer's output.

What it does   quantizes by each plain rule for the range and, at 4 bits and below, by coordinate descent from GPTQ's
               codes. Each row (output channel) takes the result with the least trace(d H d'), H the inputs' second
               moments, slightly damped. Where rows share scales or a table, the whole layer takes one
Paper          the measure is that of Frantar et al. 2023, "GPTQ"; the ranges are those of `_ranges.py` and `_affine.py`
We differ      row by row, so a batch norm behind the layer, which scales each channel, changes no choice
Cost           what is tried: five ranges, and at 4 bits and below "descent"; in layers of more than 2^20 weights
               "gptq" in its place, a quarter of the time
Did not help   the weight's own error as the measure: at 3 bits it ranks the ranges of ResNet-44 the wrong way round. So
               without moments the range is "affine"
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..registry import WEIGHT, damped
from ._descent import ROUNDING_DAMPING, descent
from ._gptq import gptq
from ._grid import CONCRETE, Params
from ._problem import Coded, WeightProblem, decoded
from ._ranges import all_codes, minmax, percentile
from ._rounding import fit_nearest
from ._weighted import weighted

Method = Callable[[WeightProblem], Coded]

NARROW = 4
"""Widths up to this are also rounded by methods that let one weight make up for another."""
_LARGE = 2**20
"""Number of weights above which GPTQ stands in for descent, which takes about four times as long."""


def auto(problem: WeightProblem) -> Coded:
    """Choose among ranges and roundings by the output's error; without moments this is "affine"."""
    if problem.moments is None:
        return fit_nearest(problem)
    found = [method(problem) for method in _methods(problem)]
    hessian = damped(problem.moments, ROUNDING_DAMPING)
    errors = torch.stack([_row_errors(problem, hessian, each) for each in found])  # (methods, R)
    rows = problem.shape[0]
    if problem.grid.format == "palette" or found[0].params.scale.shape[0] != rows:
        return found[int(errors.sum(dim=1).argmin())]
    return _by_rows(found, errors.argmin(dim=0))


def _methods(problem: WeightProblem) -> list[Method]:
    grid = problem.grid
    methods: list[Method] = [fit_nearest, weighted]
    if grid.format != "palette":
        methods += [minmax, percentile]
    if grid.format == "int":
        methods.append(all_codes)
    if grid.bits <= NARROW:
        methods.append(descent if problem.matrix.numel() <= _LARGE else gptq)
    return methods


def _row_errors(problem: WeightProblem, hessian: Tensor, coded: Coded) -> Tensor:
    """Error (R,) of each row's output."""
    d = (decoded(coded) - problem.matrix).reshape(len(hessian), -1, problem.shape[1])
    return ((d @ hessian) * d).sum(dim=2, dtype=torch.float64).reshape(-1)


def _by_rows(found: Sequence[Coded], best: Tensor) -> Coded:
    """Take each row from the result that `best` (R,) names."""
    rows = torch.arange(len(best))
    codes = torch.stack([each.codes for each in found])[best, rows]
    scale = torch.stack([each.params.scale for each in found])[best, rows]
    zeros = [each.params.zero for each in found if each.params.zero is not None]
    zero = torch.stack(zeros)[best, rows] if zeros else None
    return Coded(codes=codes, params=Params(scale=scale, zero=zero), grid=found[0].grid)


WEIGHT.register("auto", auto, formats=CONCRETE, needs="moments", optional=True)
