"""Removal carried out: a smaller model whose layers have lost the channels, heads or neurons of a `Removal`."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ..anatomy import module_at
from ._kept_experts import KeptExperts
from ._narrow_attention import NarrowAttention
from ._passed import Passed
from ._removal import Removal


def remove(model: nn.Module, removal: Removal) -> nn.Module:
    """Copy `model` without the removed parts; its outputs are those of `masked(model, removal)`.

    Works on a fresh model of the same architecture as well (no tracing): that is how an artifact is loaded.
    Raises `ConfigError` if the removal belongs to another model. See `remove_` for the model itself.
    """
    return remove_(copy.deepcopy(model), removal)


def remove_(model: nn.Module, removal: Removal) -> nn.Module:
    """Remove in place; needs less memory than `remove`, and cannot be undone."""
    holders = _holders(model)
    touched: dict[nn.Module, None] = {}
    with torch.no_grad():
        for value, axes in cut_tensors(model, removal):
            smaller = value
            for axis, kept in axes.items():
                smaller = cut(smaller, axis, kept)
            for home, leaf in holders[id(value)]:
                setattr(home, leaf, smaller)
                touched[home] = None
    for module in touched:
        set_numbers(module)
    for fqn, (_, kept) in removal.norms.items():
        set_width(module_at(model, fqn), len(kept))
    for numbers in (removal.attributes, removal.settings):
        for fqn, values in numbers.items():
            set_numbers_of(module_at(model, fqn), fqn, values)
    for fqn, kept in removal.experts.items():
        experts = module_at(model, fqn)
        if not isinstance(experts, nn.ModuleList) or kept[-1] >= len(experts):
            raise ConfigError(f"the removal belongs to another model: {fqn} should be a list of experts")
        _replace(model, fqn, KeptExperts.of(experts, kept))
    for fqn in removal.attention:
        _replace(model, fqn, NarrowAttention.of(module_at(model, fqn)))
    for fqn, n in removal.skipped.items():
        _replace(model, fqn, Passed(n, module_at(model, fqn)))
    return model


def cut_tensors(model: nn.Module, removal: Removal) -> list[tuple[Tensor, dict[int, tuple[int, ...]]]]:
    """Distinct tensors that are cut, each listed once, with the positions kept on each of its axes.

    Raises `ConfigError` if the removal belongs to another model.
    """
    found: dict[int, tuple[Tensor, dict[int, tuple[int, ...]]]] = {}
    for name, axes in removal.tensors.items():
        fqn, _, leaf = name.rpartition(".")
        module = module_at(model, fqn)
        value: Tensor | None = module._parameters.get(leaf)
        value = value if value is not None else module._buffers.get(leaf)
        if value is None:
            raise ConfigError(f"the removal belongs to another model: there is no tensor {name}")
        known = found.setdefault(id(value), (value, {}))[1]
        for axis, kept in axes.items():
            if axis >= value.ndim or not kept or kept[-1] >= value.shape[axis]:
                raise ConfigError(f"the removal belongs to another model: {name} is of shape {list(value.shape)}")
            if known.setdefault(axis, kept) != kept:
                raise ConfigError(f"{name} is shared, and the layers that hold it would keep different positions of it")
    return list(found.values())


def gone_modules(model: nn.Module, removal: Removal) -> tuple[str, ...]:
    """fqns of the modules that `remove` takes out: dropped blocks and experts."""
    gone = list(removal.skipped)
    for fqn, kept in removal.experts.items():
        names = list(module_at(model, fqn)._modules)
        gone += [f"{fqn}.{name}" for i, name in enumerate(names) if i not in kept]
    return tuple(gone)


def cut(value: Tensor, axis: int, kept: tuple[int, ...]) -> Tensor:
    smaller = value.detach().index_select(axis, torch.tensor(kept, device=value.device)).contiguous()
    return nn.Parameter(smaller, requires_grad=value.requires_grad) if isinstance(value, nn.Parameter) else smaller


def _holders(model: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """id of a tensor -> (module, name) of every module that holds it."""
    found: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for own in (module._parameters, module._buffers):
            for key, value in own.items():
                if value is not None:
                    found.setdefault(id(value), []).append((module, key))
    return found


def set_numbers(module: nn.Module) -> None:
    """Set the attributes in which PyTorch's own modules store their shapes."""
    if isinstance(module, nn.modules.conv._ConvNd):
        out, inner = module.weight.shape[:2]
        if module.transposed:
            out, inner = inner, out
            module.in_channels, module.out_channels = inner, out * module.groups
        elif module.groups > 1 and module.in_channels == module.groups:  # depthwise: a group a channel
            module.groups = out * module.groups // module.out_channels
            module.in_channels, module.out_channels = module.groups, out
        else:
            module.in_channels, module.out_channels = inner * module.groups, out
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, (nn.modules.batchnorm._NormBase,)):
        sized = module.weight if module.affine else module.running_mean
        if sized is not None:
            module.num_features = len(sized)
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        if module.weight is not None:
            module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.GroupNorm):
        if module.weight is not None:
            module.num_channels = len(module.weight)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = module.weight.shape
    elif isinstance(module, nn.RNNBase):
        recurrent, reading = module._parameters["weight_hh_l0"], module._parameters["weight_ih_l0"]
        assert recurrent is not None
        assert reading is not None
        module.hidden_size, module.input_size = recurrent.shape[1], reading.shape[1]


def set_width(norm: nn.Module, width: int) -> None:
    """Set the width of a normalisation without weights."""
    if isinstance(norm, (nn.LayerNorm, nn.RMSNorm)):
        norm.normalized_shape = (width,)
    elif isinstance(norm, nn.GroupNorm):
        norm.num_channels = width


def set_numbers_of(module: nn.Module, fqn: str, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if not isinstance(getattr(module, name, None), int):
            raise ConfigError(f"the removal belongs to another model: {fqn} has no number {name!r}")
        setattr(module, name, value)


def _replace(model: nn.Module, fqn: str, new: nn.Module) -> None:
    parent, _, leaf = fqn.rpartition(".")
    new.train(module_at(model, fqn).training)
    setattr(module_at(model, parent), leaf, new)
