"""Which modules of a model can be compressed, and which of them share a tensor."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

from torch import Tensor, nn

from ._anatomy import LayerInfo

_TYPES: tuple[tuple[str, type[nn.Module]], ...] = (
    ("linear", nn.Linear),
    ("conv1d", nn.Conv1d),
    ("conv2d", nn.Conv2d),
    ("conv_transpose1d", nn.ConvTranspose1d),
    ("conv_transpose2d", nn.ConvTranspose2d),
    ("embedding", nn.Embedding),
)


CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)


def kind_of(module: nn.Module) -> str | None:
    """One of `KINDS`, or None where we do not know how to compress the module.

    None too for a weight that is not a plain floating-point parameter of the module (parametrized, weight-normed,
    lazy, already quantized), and for an embedding with `max_norm`, which rewrites its own weight in the forward pass.
    """
    for kind, known in _TYPES:
        if isinstance(module, known):
            weight = module._parameters.get("weight")
            if weight is None or nn.parameter.is_lazy(weight) or not weight.is_floating_point() or weight.numel() == 0:
                return None
            if isinstance(module, nn.Embedding) and module.max_norm is not None:
                return None
            return kind
    return None


def weight_of(module: nn.Module) -> nn.Parameter:
    weight = module._parameters["weight"]
    if weight is None:  # `kind_of` has excluded it
        raise AttributeError("the module has no weight")
    return weight


def same_tensor(tensor: Tensor) -> tuple[object, ...]:
    """A key that is equal for two tensors exactly if they are the same view of the same memory."""
    if tensor.numel() == 0:
        return (id(tensor),)
    return (str(tensor.device), tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


def compressible(model: nn.Module) -> dict[str, LayerInfo]:
    """fqn -> what the module itself tells (no calls, no MACs), for every layer that could be compressed.

    In the order of `named_modules`; a module that is reached by several names stands under the first.
    """
    found: dict[str, LayerInfo] = {}
    holders: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for fqn, module in model.named_modules():
        kind = kind_of(module)
        if kind is None:
            continue
        weight = weight_of(module)
        holders[same_tensor(weight)].append(fqn)
        found[fqn] = LayerInfo(
            fqn=fqn,
            kind=kind,
            weight_shape=tuple(weight.shape),
            groups=module.groups if isinstance(module, CONVOLUTIONS) else 1,
            has_bias=getattr(module, "bias", None) is not None,
        )
    for fqns in holders.values():
        for fqn in fqns:
            others = tuple(other for other in fqns if other != fqn)
            found[fqn] = dataclasses.replace(found[fqn], tied_to=others)
    return found


def owner(layer: LayerInfo) -> str:
    """Of the layers that hold one tensor, the one under whose name it is stored."""
    return min(layer.fqn, *layer.tied_to) if layer.tied_to else layer.fqn
