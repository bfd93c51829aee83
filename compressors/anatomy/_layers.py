"""Compressible modules of a model, and groups of them that share a tensor."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator

from torch import Tensor, nn

from ...errors import InputError
from ..values import CONVOLUTIONS, GATES, PROJECTIONS, is_inner, weight_name
from ._anatomy import LayerInfo
from ._forward import module_at
from ._source_types import source_dtypes

_TYPES: tuple[tuple[str, type[nn.Module]], ...] = (
    ("linear", nn.Linear),
    ("conv1d", nn.Conv1d),
    ("conv2d", nn.Conv2d),
    ("conv_transpose1d", nn.ConvTranspose1d),
    ("conv_transpose2d", nn.ConvTranspose2d),
    ("embedding", nn.Embedding),
)


_RECURRENT: tuple[tuple[str, type[nn.Module]], ...] = (("lstm", nn.LSTM), ("gru", nn.GRU))


def kind_of(module: nn.Module) -> str | None:
    """Kind of the module, one of `KINDS`; None where it cannot be compressed.

    None too for a weight that is not a plain floating-point parameter of the module (parametrized, weight-normed,
    lazy, already quantized), and for an embedding with `max_norm`, which rewrites its own weight in the forward pass.
    The output projection of an `nn.MultiheadAttention` is "attention": its own forward never runs.
    """
    if not _is_plain(module._parameters.get("weight")):
        return None
    if isinstance(module, nn.Embedding) and module.max_norm is not None:
        return None
    if isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return "attention"
    return next((kind for kind, known in _TYPES if isinstance(module, known)), None)


def _is_plain(weight: nn.Parameter | None) -> bool:
    return weight is not None and not nn.parameter.is_lazy(weight) and weight.is_floating_point() and weight.numel() > 0


def is_attention(module: nn.Module) -> bool:
    """Tell whether it is an `nn.MultiheadAttention` or its replacement with fewer heads
    (`structure._narrow_attention`).
    """
    return isinstance(module, nn.MultiheadAttention) or getattr(module, "is_multihead_attention", False) is True


def inner_weights(module: nn.Module) -> dict[str, str]:
    """Parameter name -> kind, for the weights that an LSTM, a GRU or an attention holds itself."""
    kind = next((kind for kind, known in _RECURRENT if isinstance(module, known)), None)
    names = GATES
    if is_attention(module):
        kind, names = "attention", PROJECTIONS
    if kind is None:
        return {}
    return {name: kind for name, weight in module._parameters.items() if names.fullmatch(name) and _is_plain(weight)}


def holder_of(model: nn.Module, fqn: str) -> tuple[nn.Module, str]:
    """(module, parameter's name) that hold a layer's weight. Raises `InputError` if there is no such module."""
    name, _, leaf = weight_name(fqn).rpartition(".")
    return module_at(model, name), leaf


def weight_at(model: nn.Module, fqn: str) -> nn.Parameter:
    """Weight of a layer. Raises `InputError` if the model has none of that name."""
    module, leaf = holder_of(model, fqn)
    weight = module._parameters.get(leaf)
    if weight is None:
        raise InputError(f"{fqn} must have a parameter named {leaf}, but {type(module).__name__} has none")
    return weight


def kind_at(model: nn.Module, fqn: str) -> str | None:
    """Kind of the module or inner weight of this name (see `kind_of`)."""
    module, leaf = holder_of(model, fqn)
    return inner_weights(module).get(leaf) if is_inner(fqn) else kind_of(module)


def runs_in(model: nn.Module, layer: LayerInfo) -> nn.Module:
    """Name of the module called when the layer runs: the layer, or the recurrent layer or attention around it."""
    return module_at(model, layer.fqn.rpartition(".")[0] if layer.is_fused else layer.fqn)


def _candidates(model: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """(fqn, kind, holder of the weight) of each layer, in the order of `named_modules`."""
    attentions = {name for name, module in model.named_modules(remove_duplicate=False) if is_attention(module)}
    for name, module in model.named_modules():
        for leaf, kind in inner_weights(module).items():
            yield f"{name}.{leaf}" if name else leaf, kind, module
        kind_of_module = kind_of(module)
        if kind_of_module is None or is_inner(name):
            continue
        if kind_of_module == "attention" and name.rpartition(".")[0] not in attentions:
            continue
        yield name, kind_of_module, module


def same_tensor(tensor: Tensor) -> tuple[object, ...]:
    """Key that is equal for two tensors exactly if they are the same view of the same memory."""
    if tensor.numel() == 0:
        return (id(tensor),)
    return (str(tensor.device), tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


def compressible(model: nn.Module) -> dict[str, LayerInfo]:
    """fqn -> properties of the module itself (no calls, no MACs), for every compressible layer.

    In the order of `named_modules`; a module that is reached by several names stands under the first.
    """
    found: dict[str, LayerInfo] = {}
    holders: dict[tuple[object, ...], list[str]] = defaultdict(list)
    sources = source_dtypes(model)
    for fqn, kind, module in _candidates(model):
        weight = weight_at(model, fqn)
        holders[same_tensor(weight)].append(fqn)
        found[fqn] = LayerInfo(
            fqn=fqn,
            kind=kind,
            weight_shape=tuple(weight.shape),
            groups=module.groups if isinstance(module, CONVOLUTIONS) else 1,
            has_bias=_has_bias(module),
            source_dtype=sources.get(weight_name(fqn), ""),
        )
    for fqns in holders.values():
        for fqn in fqns:
            others = tuple(other for other in fqns if other != fqn)
            found[fqn] = dataclasses.replace(found[fqn], tied_to=others)
    return found


def _has_bias(module: nn.Module) -> bool:
    if isinstance(module, nn.RNNBase):
        return module.bias
    own = module._parameters
    return own.get("bias") is not None or own.get("in_proj_bias") is not None


def owner(layer: LayerInfo) -> str:
    """Layer under whose name a tensor is stored, among the layers that hold it."""
    return min(layer.fqn, *layer.tied_to) if layer.tied_to else layer.fqn
