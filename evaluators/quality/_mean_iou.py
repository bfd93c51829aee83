"""Mean intersection over union of the classes, over the whole data set."""

from __future__ import annotations

from torch import Tensor

from ._confusion import class_counts, confusion_rows
from ._error import MetricError
from ._metric import Metric


def _per_sample(outputs: Tensor, targets: Tensor | None, reference: Tensor | None) -> Tensor:
    return confusion_rows("mean_iou", outputs, targets)


def _mean_iou(rows: Tensor) -> float:
    """Mean over the classes that occur among targets or answers of right / (targets + answers - right), each summed
    over all samples. A class that occurs in neither is left out.
    """
    right, wanted, given = class_counts(rows)
    union = wanted + given - right
    if not bool((union > 0).any()):
        raise MetricError("mean_iou: no target counts")
    return float((right / union)[union > 0].mean())


MEAN_IOU = Metric(
    name="mean_iou",
    maximise=True,
    per_sample=_per_sample,
    aggregate=_mean_iou,
    range=(0.0, 1.0),
    divergence="kl",
    reads_classes=True,
    masks=True,
)
