"""F1, the harmonic mean of precision and recall, over the whole data set."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ._confusion import class_counts, confusion_rows
from ._constants import IGNORED
from ._error import MetricError
from ._metric import Metric


def _per_sample(
    name: str, threshold: float | None, outputs: Tensor, targets: Tensor | None, reference: Tensor | None
) -> Tensor:
    if targets is not None and outputs.dim() == 2 and targets.shape == outputs.shape:
        return _label_rows(name, threshold, outputs, targets)
    if threshold is not None:
        raise MetricError(f"{name}: a threshold is for labels: expected targets of the outputs' shape, zeros and ones")
    return confusion_rows(name, outputs, targets)


def _label_rows(name: str, threshold: float | None, outputs: Tensor, targets: Tensor) -> Tensor:
    """Rows (N, 3 C) as of `confusion_rows`, for C labels that are each there or not."""
    counts = ~targets.isnan() if targets.is_floating_point() else targets != IGNORED
    if not bool(((targets == 0) | (targets == 1) | ~counts).all()):
        raise MetricError(f"{name}: targets of the outputs' shape must be zeros and ones, one for each label")
    if threshold is None and bool(((outputs >= 0) & (outputs <= 1)).all()):
        raise MetricError(
            f"{name}: the outputs look like probabilities, and labels are taken from logits above 0; "
            "set [quality] args = { threshold = 0.5 }"
        )
    wanted, given = (targets == 1) & counts, (outputs > (threshold or 0.0)) & counts
    return torch.cat([wanted & given, wanted, given], dim=1).double()


def _macro(rows: Tensor) -> float:
    """Mean over the classes that occur among targets or answers of 2 right / (targets + answers)."""
    right, wanted, given = class_counts(rows)
    either = wanted + given
    if not bool((either > 0).any()):
        raise MetricError("f1: no class occurs among targets or answers")
    return float((2 * right / either)[either > 0].mean())


def _micro(rows: Tensor) -> float:
    """2 right / (targets + answers), each summed over all classes; where each sample has one class it is accuracy."""
    right, wanted, given = class_counts(rows)
    either = float((wanted + given).sum())
    if either == 0:
        raise MetricError("f1_micro: no class occurs among targets or answers")
    return float(2 * right.sum() / either)


def f1(*, threshold: float | None = None) -> Metric:
    """Make F1, the mean over classes. `threshold`: of labels, above which an output says yes; default 0, of logits."""
    return Metric(
        name="f1",
        maximise=True,
        per_sample=partial(_per_sample, "f1", threshold),
        aggregate=_macro,
        range=(0.0, 1.0),
        reads_classes=True,
        masks=True,
    )


def f1_micro(*, threshold: float | None = None) -> Metric:
    """Make F1 over all classes together."""
    return Metric(
        name="f1_micro",
        maximise=True,
        per_sample=partial(_per_sample, "f1_micro", threshold),
        aggregate=_micro,
        range=(0.0, 1.0),
        reads_classes=True,
        masks=True,
    )


F1, F1_MICRO = f1(), f1_micro()
