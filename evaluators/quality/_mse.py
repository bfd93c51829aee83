"""Mean squared error to the targets."""

from __future__ import annotations

from torch import Tensor

from ._error import MetricError
from ._metric import Metric


def _per_sample(outputs: Tensor, targets: Tensor | None, reference: Tensor | None) -> Tensor:
    """Mean of the squared differences of each sample, (N,), for outputs and targets (N, …) of one shape."""
    if targets is None or targets.shape != outputs.shape:
        came = "none" if targets is None else str(tuple(targets.shape))
        raise MetricError(f"mse: expected targets {tuple(outputs.shape)}, the shape of the outputs, got {came}")
    error = (outputs.double() - targets.to(outputs.device).double()).square()
    return error.flatten(1).mean(dim=1) if error.dim() > 1 else error


MSE = Metric(name="mse", maximise=False, per_sample=_per_sample, divergence="mse")
