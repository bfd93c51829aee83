"""Products inside an LSTM, a GRU or an `nn.MultiheadAttention`, computed weight by weight from the outside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ._anatomy import LayerInfo
from ._fused_inputs import attention_projection_inputs, recurrent_inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """Product of one weight in one call. The shapes have no batch axis and are those of a linear layer with this
    weight.

    macs  for the whole batch
    """

    macs: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]


def products(
    module: nn.Module, layers: Sequence[LayerInfo], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[tuple[LayerInfo, Product]]:
    """Product of each of the layers inside `module` in a call with these arguments; empty if they are not tensors."""
    if isinstance(module, nn.RNNBase):
        x = args[0] if args else kwargs.get("input")
        x = x.data if isinstance(x, PackedSequence) else x
        if isinstance(x, Tensor):
            for layer in layers:
                yield layer, _product(layer, [x], layer.n_weights, module.batch_first)
        return
    given = dict(zip(("query", "key", "value"), args, strict=False)) | dict(kwargs)
    query, key, value = (given.get(name) for name in ("query", "key", "value"))
    if not (isinstance(query, Tensor) and isinstance(key, Tensor) and isinstance(value, Tensor)):
        return
    batch_first = bool(getattr(module, "batch_first", False))
    for layer in layers:
        leaf = layer.fqn.rpartition(".")[2]
        if leaf == "in_proj_weight":
            yield layer, _product(layer, [query, key, value], layer.n_weights // 3, batch_first)
        else:
            x = {"k_proj_weight": key, "v_proj_weight": value}.get(leaf, query)
            yield layer, _product(layer, [x], layer.n_weights, batch_first)


def layer_inputs(
    module: nn.Module, layers: Sequence[LayerInfo], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[tuple[LayerInfo, Tensor]]:
    """Inputs (…, columns) of each of the layers in a call with these arguments; all of the layers have `sees_inputs`.

    One projection for queries, keys and values gets the three in turn. A padded sequence gives what the module is
    given. Inputs that arise inside the operator are computed again (`_fused_inputs.py`).
    """
    if isinstance(module, nn.RNNBase):
        yield from _recurrent_layer_inputs(
            module, {layer.fqn.rpartition(".")[2]: layer for layer in layers}, args, kwargs
        )
        return
    given = dict(zip(("query", "key", "value"), args, strict=False)) | dict(kwargs)
    for layer in layers:
        leaf = layer.fqn.rpartition(".")[2]
        if leaf == "out_proj":
            yield layer, attention_projection_inputs(module, args, kwargs)
            continue
        names = {"q_proj_weight": ["query"], "k_proj_weight": ["key"], "v_proj_weight": ["value"]}
        for name in names.get(leaf, ["query", "key", "value"]):
            x = given.get(name)
            if isinstance(x, Tensor):
                yield layer, x


def _recurrent_layer_inputs(
    module: nn.RNNBase, layers: Mapping[str, LayerInfo], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[tuple[LayerInfo, Tensor]]:
    """Inputs of a recurrent layer's weights; `layers` by the name of their parameter."""
    x = args[0] if args else kwargs.get("input")
    if not isinstance(x, Tensor | PackedSequence):
        return
    outside = x.data if isinstance(x, PackedSequence) else x
    first = {name: layer for name, layer in layers.items() if name.startswith("weight_ih_l0")}
    yield from ((layer, outside) for layer in first.values())
    if len(first) < len(layers):
        initial = args[1] if len(args) > 1 else kwargs.get("hx")
        for name, inner in recurrent_inputs(module, x, initial):
            if name in layers:
                yield layers[name], inner


def _product(layer: LayerInfo, inputs: Sequence[Tensor], each: int, batch_first: bool) -> Product:
    """Product of one weight; `each`: number of weights that one position of one input meets."""
    shape = tuple(inputs[0].shape[:-1])
    positions = shape[:1] if len(shape) > 1 and not batch_first else shape[1:]
    rows, columns = layer.weight_shape
    return Product(
        macs=each * sum(prod(x.shape[:-1]) for x in inputs),
        input_shape=(*positions, columns),
        output_shape=(*positions, rows),
    )
