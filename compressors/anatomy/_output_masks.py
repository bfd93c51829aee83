"""Real positions of a model's outputs: each output that has the positions of the inputs gets a mask that fits it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ._forward import classes_last
from ._mask import output_positions
from ._outputs import Outputs, compared_tensors, named_tensors

_SPANS = ("start_logits", "end_logits", "start", "end")
"""Outputs (N, T) with one number for each position. Others of two axes are (N, features)."""

OutputMasks = Mapping[str, Tensor]
"""Name of an output -> bool that can be expanded to it: True where it is real. An output that is missing is all real;
a model's one output has the name ""."""


def output_masks(
    outputs: Outputs, inputs: object, mask_name: str | None = None, *, model: nn.Module | None = None
) -> OutputMasks:
    """Find the real positions of the outputs (`output_positions`). Empty where no mask hides anything.

    An output (N, T, …) or (N, C, T) has the positions of the mask; so have `start_logits` and `end_logits` (N, T).
    One of another length (speech, which is shortened) has them where the model says how its mask is shortened.
    """
    real = output_positions(inputs, mask_name)
    if real is None or bool(real.all()):
        return {}
    found = {}
    for name, tensor in named_tensors(outputs).items():
        mask = _fitting(name, tensor, real)
        if mask is None and model is not None:
            mask = _shortened(name, tensor, real, model)
        if mask is not None:
            found[name] = mask.to(tensor.device)
    return found


def real_logits(tensor: Tensor, mask: Tensor | None, class_axis: int) -> tuple[Tensor, Tensor | None]:
    """(outputs with the classes last, mask of their positions (N, …); None where all are real).

    Where the positions are the classes, as in a span of an answer, hidden ones have no chance: -inf.
    """
    logits = classes_last(tensor, class_axis)
    if mask is None:
        return logits, None
    if tensor.dim() == 2:
        return logits.masked_fill(~mask, -torch.inf), None
    where = classes_last(mask, class_axis)
    if where.shape[-1] != 1:  # as many classes as positions
        where = classes_last(mask.transpose(1, 2), class_axis)
    return logits, where[..., 0].expand(logits.shape[:-1])


def real_values(tensor: Tensor, mask: Tensor | None) -> Tensor:
    """Values of an output at its real positions, (n,); the tensor itself without a mask."""
    return tensor if mask is None else tensor[mask.to(tensor.device).expand(tensor.shape)]


def packed_mask(outputs: Outputs, names: Iterable[str], masks: OutputMasks) -> Tensor | None:
    """Mask (N, D) of the outputs as `packed` writes them; None where all is real."""
    parts = compared_tensors(outputs, list(names))
    if not any(name in masks for name in parts):
        return None
    rows = [
        masks[name].expand(part.shape) if name in masks else torch.ones_like(part, dtype=torch.bool)
        for name, part in parts.items()
    ]
    return torch.cat([row.flatten(1) if row.dim() > 1 else row[:, None] for row in rows], dim=1)


def _fitting(name: str, tensor: Tensor, real: Tensor) -> Tensor | None:
    n, length = real.shape
    shape = tensor.shape
    if tensor.dim() == 2:
        return real if tuple(shape) == (n, length) and name.rpartition(".")[2] in _SPANS else None
    if tensor.dim() < 3 or shape[0] != n:
        return None
    if shape[1] == length:
        return real.reshape(n, length, *[1] * (tensor.dim() - 2))
    return real[:, None, :] if tensor.dim() == 3 and shape[2] == length else None


def _shortened(name: str, tensor: Tensor, real: Tensor, model: nn.Module) -> Tensor | None:
    shorten: Any = getattr(model, "_get_feature_vector_attention_mask", None)
    if shorten is None or tensor.dim() < 3 or tensor.shape[0] != len(real):
        return None
    mask = shorten(tensor.shape[1], real.long())
    return _fitting(name, tensor, mask.bool()) if isinstance(mask, Tensor) and mask.dim() == 2 else None
