"""Input of a sparsity method that knows patterns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..values import ANYWHERE, Pattern
from ._patterns import drop_lowest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SparsityProblem:
    """One matrix to make sparse.

    matrix     (R, C) float32; column i * kernel + k is input channel i at position k of the kernel
    share      of zeros
    pattern    where they may stand; it fits the matrix
    kernel     positions of the kernel: 1 but for convolutions
    moments    (groups, C, C) float32, the second moments of the inputs (`_moments.py`): of rows [i * R / groups,
               (i + 1) * R / groups) the i-th. None: nothing is known of the inputs, all count the same
    gradients  (2, R, C) float32: the mean of the loss' gradient over the samples, and the mean of its square
               (`_gradients.py`); None unless the method asked for them
    options    values of registered choices that are not neutral (`register_field`), by name
    """

    matrix: Tensor
    share: float
    pattern: Pattern = ANYWHERE
    kernel: int = 1
    moments: Tensor | None = None
    gradients: Tensor | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape[0], self.matrix.shape[1]

    @property
    def n_dropped(self) -> int:
        """Exact number of weights to drop."""
        return self.pattern.n_zeros(self.share, self.shape)

    @property
    def mean_square_inputs(self) -> Tensor:
        """Mean square (R, C) of the input that each weight is multiplied with; ones where nothing is known."""
        if self.moments is None:
            return torch.ones_like(self.matrix)
        diagonal = self.moments.diagonal(dim1=1, dim2=2)
        return diagonal.repeat_interleave(self.shape[0] // len(diagonal), dim=0)

    def mask(self, scores: Tensor) -> Tensor:
        """Mask (R, C) bool, True where a weight survives: the least scores are dropped; of equal ones the earlier
        first.
        """
        return drop_lowest(scores, self.pattern, self.share, self.kernel)

    def output_error(self, values: Tensor) -> float:
        """Mean squared error of the layer's output with weights `values` (R, C): trace(D H D')."""
        return float(self.row_errors(values).sum())

    def row_errors(self, values: Tensor) -> Tensor:
        """Contribution (R,) float64 of each output to `output_error`."""
        d = values.double() - self.matrix
        if self.moments is None:
            return d.square().sum(dim=1)
        d = d.reshape(len(self.moments), -1, self.shape[1])
        return ((d @ self.moments.double()) * d).sum(dim=2).reshape(-1)

    def no_worse(self, mask: Tensor, values: Tensor) -> Tensor:
        """New values (R, C) float32, except in rows where the old ones on the mask cost less."""
        old = torch.where(mask, self.matrix, 0.0)
        better = self.row_errors(values) <= self.row_errors(old)
        return torch.where(better[:, None] & values.isfinite().all(dim=1, keepdim=True), values, old)
