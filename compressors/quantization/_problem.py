"""Input and output of a weight method that knows formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ._grid import Grid, Params, Rounder


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightProblem:
    """One matrix to quantize.

    matrix   (R, C) float32, before anything was dropped
    grid     format, width, groups
    mask     (R, C) bool, True where a weight survives; None: all do
    moments  (groups, C, C) float32, the second moments of the inputs (`_moments.py`): of rows [i * R / groups,
             (i + 1) * R / groups) the i-th. None: nothing is known of the inputs, all count the same
    options  values of registered choices that are not neutral (`register_field`), by name
    """

    matrix: Tensor
    grid: Grid
    mask: Tensor | None = None
    moments: Tensor | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape[0], self.matrix.shape[1]

    @property
    def target(self) -> Tensor:
        """Matrix with zeros where weights were dropped."""
        return self.matrix if self.mask is None else torch.where(self.mask, self.matrix, 0.0)

    @property
    def hessian(self) -> Tensor:
        """Second moments of the inputs, or the identity."""
        return torch.eye(self.shape[1])[None] if self.moments is None else self.moments

    @property
    def importance(self) -> Tensor | None:
        """Mean square (R, C) of the input that each weight is multiplied with; None where all are equal."""
        if self.moments is None:
            return None
        diagonal = self.moments.diagonal(dim1=1, dim2=2)
        if bool((diagonal == diagonal[:, :1]).all()) or not bool((diagonal > 0).any()):
            return None
        # a dead input must not make its weights free: where they share a group's range, they would set it
        floor = diagonal.amax(dim=1, keepdim=True) * 1e-6
        return torch.maximum(diagonal, floor).repeat_interleave(self.shape[0] // len(diagonal), dim=0)

    def rounder(self, params: Params) -> Rounder:
        return Rounder(self.grid, params, self.shape)

    def output_error(self, values: Tensor) -> float:
        """Mean squared error of the layer's output with weights `values` (R, C): trace(D H D')."""
        h = self.hessian
        d = (values.double() - self.matrix).reshape(len(h), -1, self.shape[1])
        return float(((d @ h.double()) * d).sum())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coded:
    """Quantized matrix: codes (R, C) int8 in `grid.code_range`, and the parameters to decode them.

    grid  that of the problem, or one of its concrete formats where the problem's is "adaptive"
    """

    codes: Tensor
    params: Params
    grid: Grid


def nearest(problem: WeightProblem, params: Params) -> Coded:
    """Round every weight to its nearest codeword."""
    return coded(problem, params, problem.target)


def coded(problem: WeightProblem, params: Params, values: Tensor) -> Coded:
    return Coded(codes=problem.rounder(params).codes(values), params=params, grid=problem.grid)


def decoded(coded: Coded) -> Tensor:
    """Decoded values (R, C), float32."""
    shape = (coded.codes.shape[0], coded.codes.shape[1])
    return Rounder(coded.grid, coded.params, shape).decode(coded.codes)
