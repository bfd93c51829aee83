"""Checks of class logits and integer targets, and rows over the positions that count."""

from __future__ import annotations

import torch
from torch import Tensor

from ._constants import IGNORED
from ._error import MetricError


def checked_classes(name: str, outputs: Tensor, targets: Tensor | None) -> Tensor:
    """Targets as int64, for outputs (N, C) or (N, …, C) with the classes last and targets (N,) or (N, …).

    Raises `MetricError` on any other shape or dtype, fewer than two classes, or a target outside [0, C) (-100 is
    "does not count").
    """
    if targets is None:
        raise MetricError(f"{name} needs targets, one class for each output; got none")
    if outputs.dim() < 2 or outputs.shape[-1] < 2:
        raise MetricError(
            f"{name}: expected outputs (N, …, C) with at least 2 classes last, got {tuple(outputs.shape)}; "
            "for another form of output give your own function as the metric"
        )
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise MetricError(f"{name}: expected integer targets (class numbers), got {targets.dtype}")
    if targets.shape != outputs.shape[:-1]:
        raise MetricError(
            f"{name}: expected targets {tuple(outputs.shape[:-1])} for outputs {tuple(outputs.shape)} (classes last), "
            f"got {tuple(targets.shape)}{_for_maps(outputs)}"
        )
    targets = targets.to(outputs.device, torch.int64)
    counted = targets[targets != IGNORED]
    if counted.numel() and (int(counted.min()) < 0 or int(counted.max()) >= outputs.shape[-1]):
        raise MetricError(
            f"{name}: targets must be in [0, {outputs.shape[-1]}), got {int(counted.min())} to {int(counted.max())}; "
            f"the model has {outputs.shape[-1]} classes, and {IGNORED} marks a target that does not count"
        )
    return targets


def _for_maps(outputs: Tensor) -> str:
    shape = tuple(outputs.shape)
    return f"; maps with the classes on axis 1 need targets {shape[:1] + shape[2:]}" if len(shape) > 2 else ""


def n_counted(targets: Tensor) -> Tensor:
    """Count the targets of each sample that are to be judged: (N,) for targets (N, …)."""
    return (targets != IGNORED).reshape(len(targets), -1).sum(dim=1)


def rows_of_counted(name: str, scores: Tensor, targets: Tensor) -> Tensor:
    """Rows (sum, number) of each sample's scores (N, …) over the positions that count; the scores themselves (N,) where
    a sample has one position.
    """
    if targets.dim() == 1:
        return mean_of_counted(name, scores, targets)
    counts = (targets != IGNORED).flatten(1)
    total = torch.where(counts, scores.reshape(counts.shape).double(), 0.0).sum(dim=1)
    return torch.stack([total, counts.sum(dim=1).double()], dim=1)


def mean_of_counted(name: str, scores: Tensor, targets: Tensor) -> Tensor:
    """Mean (N,) of each sample's scores (N, …) over the positions that count."""
    counts = (targets != IGNORED).flatten(1) if targets.dim() > 1 else (targets != IGNORED).unsqueeze(1)
    number = counts.sum(dim=1)
    if bool((number == 0).any()):
        raise MetricError(f"{name}: sample {int((number == 0).nonzero()[0])} has no target that counts")
    flat = scores.reshape(counts.shape)
    return torch.where(counts, flat, flat.new_zeros(())).sum(dim=1) / number
