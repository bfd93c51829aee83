"""Models whose weights are computed from other parameters: plain weights, checked on a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import TaskError
from ._finite import sample_outputs

if TYPE_CHECKING:
    from torch import nn

_SHOWN = 3
_RELATIVE = 1e-4
"""Largest difference of an output from folding, relative to the largest output: rounding in FP32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedModel:
    """A model with plain weights.

    folded  name of each weight that was computed -> what computed it
    """

    model: nn.Module
    folded: Mapping[str, str]


def folded_model(model: nn.Module, sample: Any, *, is_ours: bool) -> FoldedModel:
    """Fold the computed weights that are constant in eval mode, and check that the outputs on a sample stay the same.

    is_ours  the model may be changed; else it is copied first, where there is anything to fold

    Raises `TaskError` where the outputs change, because a weight depends on more than the model's own parameters.
    """
    import torch

    from ...compressors.anatomy import computed_weights, copied, fold_weights

    if not any(computed.fold for computed in computed_weights(model)):
        return FoldedModel(model=model, folded={})
    own = model if is_ours else copied(model)
    before = sample_outputs(own, sample)
    folded = fold_weights(own)
    for one, other in zip(before, sample_outputs(own, sample), strict=True):
        close = _RELATIVE * float(one.abs().nan_to_num(0.0, 0.0, 0.0).max()) if one.numel() else 0.0
        if not torch.allclose(one, other, rtol=0.0, atol=close, equal_nan=True):
            names = ", ".join(list(folded)[:_SHOWN]) + ("" if len(folded) <= _SHOWN else ", …")
            by = ", ".join(dict.fromkeys(folded.values()))
            raise TaskError(
                f"the outputs change where the weights that {by} computes ({names}) are made plain: they depend on the "
                f"inputs of the model, or on its state; compute them from parameters alone, or hand in a model with "
                f"plain weights (torch.nn.utils.parametrize.remove_parametrizations)"
            )
    return FoldedModel(model=own, folded=folded)


def describe_folded(folded: Mapping[str, str]) -> list[str]:
    """A line that names the weights that were made plain."""
    if not folded:
        return []
    names = ", ".join(list(folded)[:_SHOWN])
    more = f" and {len(folded) - _SHOWN} more" if len(folded) > _SHOWN else ""
    by = ", ".join(dict.fromkeys(folded.values()))
    return [f"made plain, because {by} is constant when the model is used: {names}{more}"]
