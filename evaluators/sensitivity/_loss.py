"""Loss by whose gradients weights are judged important, from one backward pass over the calibration split.

Class numbers as targets (or the next token, where the metric infers them): the cross-entropy. Targets of the outputs'
shape: the mean squared error. Otherwise the outputs in a random direction, drawn for each batch, whose squared
gradients are the Fisher information of a squared error: E[g] then says nothing, and only scores by E[g^2] ("fisher")
make sense.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...compressors import Anatomy, Gradients, collect_gradients
from ...compressors.anatomy import Outputs, classes_last, own_scales, packed
from ...compressors.calibration import PASSES
from ..quality import IGNORED, Metric
from ..values import Split


def loss_gradients(
    model: nn.Module, split: Split, anatomy: Anatomy, metric: Metric, *, seed: int = 0,
    scales: Mapping[str, float] | None = None,
) -> Gradients:  # fmt: skip
    """Gradients from at most `PASSES` batches. See `collect_gradients` for the errors.

    scales  name -> factor of the outputs that are compared, where the model has several: they are taken in a random
            direction together
    """
    generator = torch.Generator().manual_seed(seed)

    def batches() -> Iterator[tuple[Any, Any, int]]:
        size = math.ceil(len(split) / PASSES)
        start = 0
        wanted = split.targets if metric.targets_from is None else metric.targets_from(split)
        for inputs, _ in split.batches(size):
            n = min(size, len(split) - start)
            yield inputs, None if wanted is None else wanted[start : start + n], n
            start += n

    def loss(found: Outputs, inputs: Any, targets: Tensor | None) -> Tensor:
        several = not isinstance(found, Tensor)
        outputs = found if isinstance(found, Tensor) else packed(found, scales or own_scales(found))
        if several:
            targets = None
        is_classes = targets is not None and not targets.is_floating_point()
        axis = metric.class_axis_of(outputs, targets) if is_classes else None
        logits = outputs if axis is None else classes_last(outputs, axis)
        if targets is not None and is_classes and targets.shape == logits.shape[:-1]:
            flat = logits.float().reshape(-1, logits.shape[-1])
            return functional.cross_entropy(flat, targets.to(outputs.device).long().reshape(-1), ignore_index=IGNORED)
        if targets is not None and targets.is_floating_point() and targets.shape == outputs.shape:
            return functional.mse_loss(outputs.float(), targets.to(outputs.device).float())
        signs = torch.randint(0, 2, outputs.shape, generator=generator).mul_(2).sub_(1).to(outputs)
        drawn: Tensor = (signs * outputs).nan_to_num(0.0).sum()
        return drawn / math.sqrt(outputs.numel())

    return collect_gradients(model, batches(), anatomy, loss)
