"""Spearman's rank correlation of outputs and targets, over the whole data set."""

from __future__ import annotations

import torch
from torch import Tensor

from ._error import MetricError
from ._metric import Metric


def _per_sample(outputs: Tensor, targets: Tensor | None, reference: Tensor | None) -> Tensor:
    """Rows (output, target) for outputs and targets (N,) or (N, 1)."""
    n = len(outputs)
    if targets is None or outputs.numel() != n or targets.numel() != n:
        came = "none" if targets is None else str(tuple(targets.shape))
        raise MetricError(
            f"spearman: expected one number for each sample, outputs and targets (N,) or (N, 1), got "
            f"{tuple(outputs.shape)} and {came}"
        )
    return torch.stack([outputs.reshape(n).double(), targets.to(outputs.device).reshape(n).double()], dim=1)


def _correlation(rows: Tensor) -> float:
    """Pearson's correlation of the ranks; ties get the mean of their ranks. Raises `MetricError` for constants."""
    if len(rows) < 2:
        raise MetricError(f"spearman needs at least 2 samples, got {len(rows)}")
    ranks = torch.stack([_ranks(column) for column in rows.unbind(dim=1)])
    apart = ranks - ranks.mean(dim=1, keepdim=True)
    norms = apart.norm(dim=1)
    for norm, which in zip(norms, ("outputs", "targets"), strict=True):
        if norm == 0:
            raise MetricError(f"spearman is not defined: all {which} are equal")
    return float(((apart[0] @ apart[1]) / norms.prod()).clamp(-1.0, 1.0))


def _ranks(values: Tensor) -> Tensor:
    _, place, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(dim=0).double()
    ranks: Tensor = (last - (counts - 1) / 2)[place]
    return ranks


SPEARMAN = Metric(
    name="spearman",
    maximise=True,
    per_sample=_per_sample,
    aggregate=_correlation,
    resamples=200,
    range=(-1.0, 1.0),
    divergence="mse",
)
