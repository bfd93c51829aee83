"""Weights that are not finite: refused where the outputs are NaN as well, else their layers are left alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...errors import TaskError

if TYPE_CHECKING:
    from torch import Tensor, nn


def check_finite(model: nn.Module, outputs: Sequence[Tensor]) -> None:
    """Raise `TaskError` for a parameter with NaN or infinity where an output is NaN, or none is finite.

    outputs  what the model returns for a sample
    """
    import torch

    is_wrong = any(bool(torch.isnan(each).any()) or not bool(torch.isfinite(each).any()) for each in outputs)
    for name, tensor in model.named_parameters():
        if is_wrong and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise TaskError(
                f"the model's {name} holds NaN or infinity, and so do its outputs. Load weights that are finite"
            )


def sample_outputs(model: nn.Module, sample: Any) -> list[Tensor]:
    """Floating-point tensors that the model returns in eval mode."""
    from ...compressors import preserved
    from ...compressors.anatomy import compared_tensors, forward

    with preserved(model):
        return [tensor.clone() for tensor in compared_tensors(forward(model, sample)).values()]
