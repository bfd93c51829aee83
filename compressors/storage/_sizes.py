"""Length of a compressed model's file without writing it: the fixed part, and each layer's share."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ..anatomy import Anatomy, LayerInfo, owner, stored_dtype, weight_at
from ..values import LayerSpec
from ..variants import Variant, variant_of
from ._layout import Layout
from ._records import layer_record, layer_record_bytes, weight_record_bytes


def layer_bytes(layer: LayerInfo, spec: LayerSpec, variant: Variant | None) -> int:
    """Layer's share of the file under `spec`; `layer` comes from a traced `Anatomy`.

    `variant` may be None for a weight that is left alone, in the type of its source. Of layers that share a weight, the
    first by name pays.
    `fixed_bytes(model, anatomy)` and the shares of all the anatomy's layers add up to the length of the file.
    """
    n_bytes = layer_record_bytes(spec, layer)
    if owner(layer) == layer.fqn:
        alone = getattr(torch, layer.source_dtype or "float32").itemsize * layer.n_weights
        n_bytes += weight_record_bytes(spec, alone if variant is None else variant.n_bytes)
    return n_bytes


def fixed_bytes(model: nn.Module, anatomy: Anatomy) -> int:
    """Bytes of every assignment: header, uncompressed parameters and buffers, layers that never run."""
    layout = Layout.of(model)
    traced = set(anatomy.fqns)
    paid_for = {layout.layers[fqn] for fqn in traced}
    left_alone = LayerSpec()
    unused_weights = sum(
        weight_record_bytes(left_alone, entry.n_bytes)
        for index, entry in enumerate(layout.weights)
        if index not in paid_for
    )
    unused_layers = sum(len(layer_record(left_alone, fqn, None)) for fqn in layout.layers if fqn not in traced)
    return layout.overhead_bytes + unused_weights + unused_layers


def stored_bytes(
    model: nn.Module, anatomy: Anatomy, assignment: Mapping[str, LayerSpec], variants: Mapping[str, Variant]
) -> int:
    """Exact length of the file that `save_model` would write."""
    total = fixed_bytes(model, anatomy)
    for layer in anatomy.layers:
        spec = assignment.get(layer.fqn, LayerSpec())
        if spec.changes_weight:
            variant = variant_of(layer.fqn, spec, variants, layer.weight_shape)
        else:
            weight = weight_at(model, layer.fqn).detach()
            values = weight.to(stored_dtype(weight, layer.source_dtype))
            variant = Variant(spec=LayerSpec(), effective=weight, tensors={"values": values})
        total += layer_bytes(layer, spec, variant)
    return total
