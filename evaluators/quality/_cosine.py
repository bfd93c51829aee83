"""Cosine agreement with the outputs of the original model; needs no targets."""

from __future__ import annotations

import torch
from torch import Tensor

from ._error import MetricError
from ._metric import Metric


def _per_sample(outputs: Tensor, targets: Tensor | None, reference: Tensor | None) -> Tensor:
    """Cosine of the angle between each sample's outputs and the original's, both flattened: (N,), in [-1, 1].
    Positions that a mask hides are zero in both.

    Two zero vectors agree (1); a zero and another do not (0).
    """
    if reference is None or reference.shape != outputs.shape:
        came = "none" if reference is None else str(tuple(reference.shape))
        raise MetricError(f"cosine: expected reference outputs {tuple(outputs.shape)}, as the outputs, got {came}")
    if outputs.dim() < 2:
        raise MetricError(f"cosine: expected outputs (N, D, …), a vector for each sample, got {tuple(outputs.shape)}")
    a, b = outputs.double().flatten(1), reference.to(outputs.device).double().flatten(1)
    norms = a.norm(dim=1) * b.norm(dim=1)
    cosine = ((a * b).sum(dim=1) / norms.clamp_min(torch.finfo(torch.float64).tiny)).clamp(-1.0, 1.0)
    return torch.where((a == b).all(dim=1), 1.0, cosine)


COSINE = Metric(
    name="cosine",
    maximise=True,
    per_sample=_per_sample,
    range=(-1.0, 1.0),
    needs_reference=True,
    needs_targets=False,
    masks=True,
    divergence="mse",
)
