"""Counts of right and wrong classes in each sample, from which figures of the whole data set come."""

from __future__ import annotations

import torch
from torch import Tensor

from ._classes import checked_classes
from ._constants import IGNORED


def confusion_rows(name: str, outputs: Tensor, targets: Tensor | None) -> Tensor:
    """Rows for class logits (N, …, C) and targets (N, …), -100 left out.

    (N, C): the pair (target, answer), for a row of counts would be long. (N, …, C): the right positions of each of the
    C classes, then how often each is the target, then how often the answer: (N, 3 C).
    """
    targets = checked_classes(name, outputs, targets)
    answers = outputs.argmax(dim=-1)
    if targets.dim() == 1:
        return torch.stack([targets, answers], dim=1)
    n_classes = outputs.shape[-1]
    return torch.cat(
        [
            _counts(targets, (targets != IGNORED) & (answers == targets), n_classes),
            _counts(targets, targets != IGNORED, n_classes),
            _counts(answers, targets != IGNORED, n_classes),
        ],
        dim=1,
    )


def class_counts(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(Right answers, targets, answers) of each class (C,) over all rows of `confusion_rows`."""
    if rows.shape[1] == 2:
        target, answer = rows[rows[:, 0] != IGNORED].long().unbind(dim=1)
        n_classes = int(torch.cat([target, answer]).max()) + 1 if len(target) else 0
        counted = (part.bincount(minlength=n_classes).double() for part in (target[target == answer], target, answer))
        right, wanted, given = counted
    else:
        right, wanted, given = rows.sum(dim=0).chunk(3)
    return right, wanted, given


def _counts(classes: Tensor, chosen: Tensor, n_classes: int) -> Tensor:
    """Count each class among the chosen positions of each sample: (N, C)."""
    flat, chosen = classes.flatten(1), chosen.flatten(1)
    counts = torch.zeros(len(flat), n_classes, dtype=torch.float64, device=flat.device)
    return counts.scatter_add_(1, torch.where(chosen, flat, 0), chosen.double())
