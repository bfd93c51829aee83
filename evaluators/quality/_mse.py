"""Mean squared error to the targets."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ._error import MetricError
from ._metric import Metric


def squared_error_rows(name: str, outputs: Tensor, targets: Tensor | None) -> Tensor:
    """Rows (sum of squared differences, number of them) for outputs and targets (N, …) of one shape; those of a target
    that is NaN, as behind a mask, are left out. The squared differences (N,) themselves for outputs (N,).
    """
    if targets is None or targets.shape != outputs.shape:
        came = "none" if targets is None else str(tuple(targets.shape))
        raise MetricError(f"{name}: expected targets {tuple(outputs.shape)}, the shape of the outputs, got {came}")
    error = (outputs.double() - targets.to(outputs.device).double()).square()
    if error.dim() == 1:
        return error
    error = error.flatten(1)
    counts = ~error.isnan()
    return torch.stack([error.nan_to_num(0.0).sum(dim=1), counts.sum(dim=1).double()], dim=1)


def n_numbers(targets: Tensor) -> Tensor:
    """Count the numbers of each sample's targets (N, …) that are compared: (N,)."""
    return (~targets.double().isnan()).reshape(len(targets), -1).sum(dim=1)


def _per_sample(outputs: Tensor, targets: Tensor | None, reference: Tensor | None) -> Tensor:
    return squared_error_rows("mse", outputs, targets)


MSE = Metric(
    name="mse",
    maximise=False,
    per_sample=_per_sample,
    weight=n_numbers,
    range=(0.0, math.inf),
    divergence="mse",
    masks=True,
)
