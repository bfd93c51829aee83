"""Metrics that are objects with `update`, `compute` and `reset`, such as those of torchmetrics."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from ._error import MetricError
from ._metric import Divergence, Metric

RESAMPLES = 100
"""How often the object computes its figure again for an interval, and for a paired test."""
MAX_NUMBERS = 1 << 16
"""Numbers of one sample's outputs and targets that are kept, to be given to `update` again."""
_CHUNK = 256
_DTYPES = (torch.float64, torch.int64, torch.bool)


def is_stateful(found: object) -> bool:
    """Tell whether this is such an object, or a class of such."""
    return all(callable(getattr(found, verb, None)) for verb in ("update", "compute", "reset"))


def metric_from_object(made: Any, name: str, maximise: bool, *, divergence: Divergence | None = None) -> Metric:
    """Metric from a user's object: `reset()`, then `update(outputs, targets)` for batches, then `compute()`, a number.

    The rows are the outputs and targets themselves, with their shapes, so that any choice of samples can be given to
    `update` again: the figure of a data set, of a resample, or of two models with some samples swapped. `update` gets
    FP32, int64 and bool. The object that is handed in stays as it is.
    """
    own = copy.deepcopy(made)

    def per_sample(outputs: Tensor, targets: Tensor | None, reference: Tensor | None) -> Tensor:
        return _packed(name, outputs, targets)

    return Metric(
        name=name,
        maximise=maximise,
        per_sample=per_sample,
        aggregate=lambda rows: _computed(own, name, rows),
        resamples=RESAMPLES,
        needs_targets=False,
        divergence=divergence,
    )


def _packed(name: str, outputs: Tensor, targets: Tensor | None) -> Tensor:
    """Rows (head, numbers): for outputs and targets each the dtype, the number of axes and their lengths."""
    parts = [outputs] if targets is None else [outputs, targets.to(outputs.device)]
    head: list[float] = [len(parts)]
    for part in parts:
        kind = _DTYPES[0] if part.is_floating_point() else _DTYPES[2] if part.dtype == torch.bool else _DTYPES[1]
        head += [_DTYPES.index(kind), part.dim() - 1, *part.shape[1:]]
    flat = torch.cat([part.reshape(len(outputs), -1).double() for part in parts], dim=1)
    if flat.shape[1] > MAX_NUMBERS:
        raise MetricError(
            f"{name}: outputs {tuple(outputs.shape)} and targets are {flat.shape[1]} numbers for each sample, more "
            f"than the {MAX_NUMBERS} that are kept for a metric with update and compute; give a function "
            "(outputs, targets) -> (N,), or a ready metric (mean_iou, f1)"
        )
    return torch.cat([torch.tensor(head, dtype=torch.float64).expand(len(flat), -1), flat.cpu()], dim=1)


def _unpacked(rows: Tensor) -> list[Tensor]:
    head, at, shapes = rows[0], 1, []
    for _ in range(int(head[0])):
        n_axes = int(head[at + 1])
        shapes.append((_DTYPES[int(head[at])], tuple(int(n) for n in head[at + 2 : at + 2 + n_axes])))
        at += 2 + n_axes
    parts = []
    for dtype, shape in shapes:
        length = math.prod(shape)
        part = rows[:, at : at + length].reshape(len(rows), *shape)
        parts.append(part.float() if dtype == torch.float64 else part.to(dtype))
        at += length
    return parts


def _computed(own: Any, name: str, rows: Tensor) -> float:
    own.reset()
    for chunk in rows.split(_CHUNK):
        own.update(*_unpacked(chunk))
    figure = own.compute()
    own.reset()
    if isinstance(figure, Tensor) and figure.numel() == 1:
        return float(figure)
    if isinstance(figure, (int, float)):
        return float(figure)
    shown = f"a tensor {tuple(figure.shape)}" if isinstance(figure, Tensor) else f"a {type(figure).__name__}"
    raise MetricError(f"{name}: compute() must return one number, got {shown}")
