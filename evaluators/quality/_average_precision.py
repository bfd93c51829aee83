"""Average precision, the area under the curve of precision over recall, over the whole data set."""

from __future__ import annotations

import torch
from torch import Tensor

from ._classes import checked_classes
from ._error import MetricError
from ._metric import Metric

_LABELS, _CLASS = 0.0, 1.0
"""Kinds of rows."""


def _per_sample(outputs: Tensor, targets: Tensor | None, reference: Tensor | None) -> Tensor:
    """Rows (kind, numbers): C scores and C zeros and ones, for outputs (N, C) and targets (N, C) of them, or outputs
    (N,) or (N, 1) and targets (N,) or (N, 1); C scores and the class, for targets (N,) of classes.
    """
    if targets is None:
        raise MetricError("average_precision needs targets, a class or zeros and ones; got none")
    is_single = outputs.dim() == 1 or tuple(outputs.shape[1:]) == (1,)
    if is_single and targets.numel() == outputs.numel():
        outputs, targets = outputs.reshape(-1, 1), targets.reshape(-1, 1)
    if outputs.dim() == 2 and targets.shape == outputs.shape:
        if not bool(((targets == 0) | (targets == 1)).all()):
            raise MetricError("average_precision: targets of the outputs' shape must be zeros and ones")
        return torch.cat([torch.full((len(outputs), 1), _LABELS), outputs.cpu(), targets.cpu()], dim=1).double()
    if outputs.dim() != 2:
        raise MetricError(
            f"average_precision: expected outputs (N, C), one answer for each sample, got {tuple(outputs.shape)}; "
            "for another form of output give your own function or object as the metric"
        )
    targets = checked_classes("average_precision", outputs, targets)
    return torch.cat([torch.full((len(outputs), 1), _CLASS), outputs.cpu(), targets.cpu()[:, None]], dim=1).double()


def _mean_average_precision(rows: Tensor) -> float:
    """Mean over the classes (or labels) that some sample has of the average precision of each against all others.

    Scores of classes are made probabilities by a softmax, unless all of them are; of labels they are ranked as they
    are. Raises `MetricError` where no sample has any.
    """
    kind, rows = rows[0, 0], rows[:, 1:]
    if kind == _CLASS:
        scores, classes = rows[:, :-1], rows[:, -1]
        scores, classes = scores[classes >= 0], classes[classes >= 0]
        sums = scores.sum(dim=1)
        if not (bool((scores >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-4)):
            scores = scores.softmax(dim=1)
        wanted = classes.long()[:, None] == torch.arange(scores.shape[1])
    else:
        scores, labels = rows.chunk(2, dim=1)
        wanted = labels == 1
    found = [
        _average_precision(scores[:, column], wanted[:, column])
        for column in range(wanted.shape[1])
        if bool(wanted[:, column].any())
    ]
    if not found:
        raise MetricError("average_precision: no sample has any of the classes")
    return sum(found) / len(found)


def _average_precision(scores: Tensor, wanted: Tensor) -> float:
    """Sum over the distinct scores, from the greatest, of the gain in recall times the precision; ties are one step."""
    order = scores.argsort(descending=True)
    scores, hits = scores[order], wanted[order].double().cumsum(dim=0)
    ends = torch.cat([(scores[1:] != scores[:-1]).nonzero().flatten(), torch.tensor([len(scores) - 1])])
    hits_at = hits[ends]
    precision, recall = hits_at / (ends + 1), hits_at / hits[-1]
    return float((recall.diff(prepend=torch.zeros(1)) * precision).sum())


AVERAGE_PRECISION = Metric(
    name="average_precision",
    maximise=True,
    per_sample=_per_sample,
    aggregate=_mean_average_precision,
    resamples=200,
    range=(0.0, 1.0),
)
