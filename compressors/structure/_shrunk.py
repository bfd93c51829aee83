"""Layers of a removed model, derived from the whole model's anatomy: no model is made, and nothing runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from math import prod

from ..anatomy import Anatomy, LayerInfo
from ..values import weight_name
from ._removal import Removal


def shrunk(anatomy: Anatomy, removal: Removal) -> Anatomy:
    """Anatomy that tracing `remove(model, removal)` would give, for costs: shapes, groups, MACs.

    It is exact, except for `n_params`, which does not see the removed biases and norms. Layers inside dropped blocks
    and experts are missing.

    Where experts run only on tokens that ask them, the tokens of dropped experts go to the others. Their MACs go there
    in equal parts (the number of tokens for each is known only at run time; the sum is exact).
    """
    anatomy = _with_tokens_of_the_gone(anatomy, removal)
    gone = [*removal.skipped]
    for fqn, kept in removal.experts.items():
        known = {
            int(name.removeprefix(f"{fqn}.").partition(".")[0])
            for name in (*anatomy.fqns, *anatomy.unused)
            if name.startswith(f"{fqn}.")
        }
        gone += [f"{fqn}.{i}" for i in known - set(kept)]

    def is_gone(fqn: str) -> bool:
        return any(fqn == one or fqn.startswith(f"{one}.") for one in gone)

    layers = [_shrunk(layer, removal) for layer in anatomy.layers if not is_gone(layer.fqn)]
    left = {layer.fqn for layer in layers}
    layers = [
        dataclasses.replace(layer, tied_to=tuple(f for f in layer.tied_to if f in left)) if layer.tied_to else layer
        for layer in layers
    ]
    groups = [tuple(fqn for fqn in group if fqn in left) for group in anatomy.groups]
    before, after = (sum(layer.n_weights for layer in these) for these in (anatomy.layers, layers))
    return dataclasses.replace(
        anatomy, layers=tuple(layers), unused=tuple(fqn for fqn in anatomy.unused if not is_gone(fqn)),
        groups=tuple(group for group in groups if group),
        n_params=anatomy.n_params - before + after,
    )  # fmt: skip


def _with_tokens_of_the_gone(anatomy: Anatomy, removal: Removal) -> Anatomy:
    macs: dict[str, int] = {}
    for fqn, kept in removal.experts.items():
        same: dict[str, dict[int, LayerInfo]] = {}
        for layer in anatomy.layers:
            if layer.fqn.startswith(f"{fqn}."):
                index, _, rest = layer.fqn.removeprefix(f"{fqn}.").partition(".")
                same.setdefault(rest, {})[int(index)] = layer
        home = fqn.rpartition(".")[0]
        router = next((r for r in removal.routers if r.rpartition(".")[0] == home and r in anatomy.fqns), None)
        for layers in same.values():
            left = [layer for index, layer in layers.items() if index in kept]
            if _all_run_on_all(layers.values(), None if router is None else anatomy[router]) or not left:
                continue
            share, rest_ = divmod(sum(layer.macs for layer in layers.values()), len(left))
            macs |= {layer.fqn: share + (i < rest_) for i, layer in enumerate(left)}
    return dataclasses.replace(
        anatomy,
        layers=tuple(
            dataclasses.replace(layer, macs=macs[layer.fqn]) if layer.fqn in macs else layer for layer in anatomy.layers
        ),
    )


def _all_run_on_all(layers: Collection[LayerInfo], router: LayerInfo | None) -> bool:
    """Tell whether this layer of each expert sees every token, as the router does."""
    if router is not None:
        return all(layer.macs * router.n_weights == router.macs * layer.n_weights for layer in layers)
    return len({layer.macs for layer in layers}) == 1


def _shrunk(layer: LayerInfo, removal: Removal) -> LayerInfo:
    axes = removal.tensors.get(weight_name(layer.fqn))
    if not axes:
        return layer
    shape = tuple(len(axes[axis]) if axis in axes else size for axis, size in enumerate(layer.weight_shape))
    if layer.kind == "embedding":
        return dataclasses.replace(layer, weight_shape=shape, output_shape=(*layer.output_shape[:-1], shape[1]))
    depthwise = layer.groups > 1 and layer.weight_shape[1] == 1
    groups = layer.groups * shape[0] // layer.weight_shape[0] if depthwise else layer.groups
    ratio = (shape[0] * prod(shape[1:]), layer.weight_shape[0] * prod(layer.weight_shape[1:]))
    return dataclasses.replace(
        layer,
        weight_shape=shape,
        groups=groups,
        macs=layer.macs * ratio[0] // ratio[1],
        input_shape=_with_channels(layer, layer.input_shape, shape[1] * groups),
        output_shape=_with_channels(layer, layer.output_shape, shape[0]),
    )


def _with_channels(layer: LayerInfo, shape: tuple[int, ...], n: int) -> tuple[int, ...]:
    if not shape:
        return shape
    return (*shape[:-1], n) if layer.kind == "linear" or layer.is_fused else (n, *shape[1:])
