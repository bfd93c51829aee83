"""The layers of a removed model, worked out from the whole one's: no model is made, and nothing runs."""

from __future__ import annotations

import dataclasses
from math import prod

from .._anatomy import Anatomy, LayerInfo
from .._names import weight_name
from ._removal import Removal


def shrunk(anatomy: Anatomy, removal: Removal) -> Anatomy:
    """The anatomy that tracing `remove(model, removal)` would give, for costs: shapes, groups, MACs. Exact, but for
    `n_params`, which does not see that biases and norms went too; layers inside dropped blocks and experts are gone.
    """
    gone = [*removal.skipped]
    for fqn, kept in removal.experts.items():
        known = {
            int(name.removeprefix(f"{fqn}.").partition(".")[0]) for name in anatomy.fqns if name.startswith(f"{fqn}.")
        }
        gone += [f"{fqn}.{i}" for i in known - set(kept)]
    layers = [
        _shrunk(layer, removal) for layer in anatomy.layers if not any(layer.fqn.startswith(f"{fqn}.") for fqn in gone)
    ]
    left = {layer.fqn for layer in layers}
    layers = [
        dataclasses.replace(layer, tied_to=tuple(f for f in layer.tied_to if f in left)) if layer.tied_to else layer
        for layer in layers
    ]
    groups = [tuple(fqn for fqn in group if fqn in left) for group in anatomy.groups]
    before, after = (sum(layer.n_weights for layer in these) for these in (anatomy.layers, layers))
    return dataclasses.replace(
        anatomy, layers=tuple(layers), groups=tuple(group for group in groups if group),
        n_params=anatomy.n_params - before + after,
    )  # fmt: skip


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
    return (*shape[:-1], n) if layer.kind == "linear" or layer.is_sealed else (n, *shape[1:])
