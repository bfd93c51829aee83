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
from ...compressors.anatomy import (
    Outputs,
    classes_last,
    output_masks,
    own_scales,
    packed,
    packed_mask,
    real_logits,
    real_values,
)
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

    Outputs and targets that the split's mask hides do not count.
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
        masks = output_masks(found, inputs, split.mask, model=model)
        if isinstance(found, Tensor):
            return _of_one(found, targets, masks.get(""), metric, generator)
        factors = scales or own_scales(found)
        return _along_signs(packed(found, factors, masks), packed_mask(found, factors, masks), generator)

    return collect_gradients(model, batches(), anatomy, loss)


def _of_one(
    outputs: Tensor, targets: Tensor | None, real: Tensor | None, metric: Metric, generator: torch.Generator
) -> Tensor:
    """Loss of a model's one output; `real` can be expanded to it."""
    is_classes = targets is not None and not targets.is_floating_point()
    axis = metric.class_axis_of(outputs, targets) if is_classes else None
    logits = outputs if axis is None else classes_last(outputs, axis)
    if targets is not None and is_classes and targets.shape == logits.shape[:-1]:
        wanted = targets.to(outputs.device).long()
        if real is not None:
            _, where = real_logits(outputs, real, -1 if axis is None else axis)
            wanted = wanted if where is None else wanted.masked_fill(~where, IGNORED)
        if not bool((wanted != IGNORED).any()):  # a text of one token has no next one
            return (0.0 * outputs.float()).nan_to_num(0.0).sum()
        flat = logits.float().reshape(-1, logits.shape[-1])
        return functional.cross_entropy(flat, wanted.reshape(-1), ignore_index=IGNORED)
    if targets is not None and targets.is_floating_point() and targets.shape == outputs.shape:
        wanted = targets.to(outputs.device).float()
        return functional.mse_loss(real_values(outputs.float(), real), real_values(wanted, real))
    return _along_signs(outputs, real, generator)


def _along_signs(outputs: Tensor, real: Tensor | None, generator: torch.Generator) -> Tensor:
    """Outputs in a random direction."""
    values = real_values(outputs, real)
    signs = torch.randint(0, 2, values.shape, generator=generator).mul_(2).sub_(1).to(outputs)
    drawn: Tensor = (signs * values).nan_to_num(0.0).sum()
    return drawn / math.sqrt(max(1, values.numel()))
