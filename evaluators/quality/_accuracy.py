"""Accuracy: the share of right answers."""

from __future__ import annotations

from torch import Tensor

from ._classes import checked_classes, n_counted, rows_of_counted
from ._metric import Metric


def _per_sample(outputs: Tensor, targets: Tensor | None, reference: Tensor | None) -> Tensor:
    """Accuracy for outputs (N, C) and targets (N,): 1 where the target has the largest logit. For (N, …, C) the row
    (right positions, positions), so that the figure is the share of all positions. `Metric.scores` puts the classes of
    maps (N, C, …) last.
    """
    targets = checked_classes("accuracy", outputs, targets)
    return rows_of_counted("accuracy", (outputs.argmax(dim=-1) == targets).double(), targets)


ACCURACY = Metric(
    name="accuracy",
    maximise=True,
    per_sample=_per_sample,
    unit="fraction",
    weight=n_counted,
    range=(0.0, 1.0),
    divergence="kl",
    reads_classes=True,
    masks=True,
)
