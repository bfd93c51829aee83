"""Trace of one forward pass: layers that ran, number of calls, and costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor, nn

from ...errors import InputError
from ._anatomy import Anatomy, LayerInfo
from ._consumers import Consumers, ConsumerWatch
from ._forward import batch_size, check_runs, module_at, temporary_hooks
from ._fused import Product, products
from ._influence import without_effect
from ._layers import compressible, runs_in, same_tensor


@dataclass(slots=True)
class _Seen:
    """Observations of one layer's hook."""

    n_calls: int = 0
    n_inputs: int = 0
    n_outputs: int = 0
    macs: int = 0
    input_shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()


def trace_anatomy(
    model: nn.Module, inputs: object, sample: object | None = None, *, compared: Sequence[str] | None = None
) -> Anatomy:
    """Run `model` once on `inputs` (see `forward`) in eval mode without gradients, and describe the layers that ran.

    The model is left as it was: train mode, grad mode, hooks and random state.

    sample    a smaller input, on which layers without effect on the outputs are looked for first; default: `inputs`
    compared  names of the compared outputs of a model with several; None: all of floating point

    Raises `InputError` if there is no layer that can be compressed, or an argument of the forward is not given.
    """
    candidates = compressible(model)
    if not candidates:
        raise InputError(
            f"{type(model).__name__} has no layer that can be compressed: paredown knows Linear, Conv1d, Conv2d "
            f"(transposed ones too), Embedding, LSTM, GRU and MultiheadAttention with a plain floating-point weight. "
            f"Check the model that the factory returns"
        )
    consumers = ConsumerWatch(model)
    with consumers.watching():
        seen = _watch(model, inputs, candidates)
    if not seen:
        raise InputError(
            f"{type(model).__name__} has {len(candidates)} layers that could be compressed, but none ran in the "
            f"forward pass; it may run a traced or frozen copy of them"
        )
    ran = [candidates[fqn] for fqn in seen]
    first, wider = (inputs, None) if sample is None else (sample, inputs)
    idle = without_effect(model, first, ran, wider, compared)
    idle = idle if len(idle) < len(seen) else ()  # outputs that never change tell nothing of the layers
    seen = {fqn: record for fqn, record in seen.items() if fqn not in idle}
    n_samples = batch_size(inputs)
    layers = tuple(_layer(candidates[fqn], seen, n_samples, consumers.of(fqn)) for fqn in seen)
    unused = tuple(fqn for fqn in candidates if fqn not in seen)
    holders = [(fqn, next((other for other in candidates[fqn].tied_to if other in seen), "")) for fqn in unused]
    return Anatomy(
        layers=layers,
        unused=unused,
        groups=_groups(layers),
        n_params=_n_params(model),
        without_effect=idle,
        unused_ties=tuple((fqn, other) for fqn, other in holders if other),
    )


def _watch(model: nn.Module, inputs: object, candidates: dict[str, LayerInfo]) -> dict[str, _Seen]:
    """fqn -> observations, in the order of the first calls."""
    seen: dict[str, _Seen] = {}

    def watch(fqn: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
            first = args[0] if args else kwargs.get("input")
            if not isinstance(first, Tensor) or not isinstance(output, Tensor):
                return
            record = seen.setdefault(fqn, _Seen())
            if record.n_calls == 0:
                record.input_shape = tuple(first.shape[1:])
                record.output_shape = tuple(output.shape[1:])
            record.n_calls += 1
            record.n_inputs += first.numel()
            record.n_outputs += output.numel()

        return hook

    def watch_fused(layers: list[LayerInfo]) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
            for layer, product in products(module, layers, args, kwargs):
                _note(seen.setdefault(layer.fqn, _Seen()), product)

        return hook

    fused: dict[nn.Module, list[LayerInfo]] = {}
    for layer in candidates.values():
        if layer.is_fused:
            fused.setdefault(runs_in(model, layer), []).append(layer)
    with temporary_hooks() as hooks:
        for module, layers in fused.items():
            hooks.append(module.register_forward_hook(watch_fused(layers), with_kwargs=True))
        for layer in candidates.values():
            if not layer.is_fused:
                hook = watch(layer.fqn)
                hooks.append(module_at(model, layer.fqn).register_forward_hook(hook, with_kwargs=True))
        check_runs(model, inputs)
    return seen


def _note(record: _Seen, product: Product) -> None:
    if record.n_calls == 0:
        record.input_shape, record.output_shape = product.input_shape, product.output_shape
    record.n_calls += 1
    record.macs += product.macs


def _layer(static: LayerInfo, all_seen: dict[str, _Seen], n_samples: int, consumers: Consumers) -> LayerInfo:
    seen = all_seen[static.fqn]
    if static.kind not in ("conv1d", "conv2d"):  # integer products of linear layers give FP32 on every runtime here
        linear = static.kind == "linear"
        consumers = Consumers(product=consumers.product, product_in=consumers.product_in) if linear else Consumers()
    per_number = 0 if static.kind == "embedding" else prod(static.weight_shape[1:])
    n_numbers = seen.n_inputs if static.is_transposed else seen.n_outputs
    macs = seen.macs if static.is_fused else n_numbers * per_number
    return dataclasses.replace(
        static,
        n_calls=seen.n_calls,
        macs=-(-macs // n_samples),
        input_shape=seen.input_shape,
        output_shape=seen.output_shape,
        # An unused layer has no say, though its weight changes with that of the layers that hold it too.
        tied_to=tuple(fqn for fqn in static.tied_to if fqn in all_seen),
        shared_input=consumers.shared_input,
        residual_output=consumers.residual_output,
        relu_before_mean=consumers.relu_before_mean,
        product=consumers.product,
        product_in=consumers.product_in,
    )


def _groups(layers: tuple[LayerInfo, ...]) -> tuple[tuple[str, ...], ...]:
    """Groups of layers that decide together: layers that ran and hold the same tensor; every other layer is alone."""
    groups: list[tuple[str, ...]] = []
    placed: set[str] = set()
    for layer in layers:
        if layer.fqn in placed:
            continue
        together = {layer.fqn, *layer.tied_to}
        groups.append(tuple(other.fqn for other in layers if other.fqn in together))
        placed |= together
    return tuple(groups)


def _n_params(model: nn.Module) -> int:
    distinct = {same_tensor(parameter): parameter.numel() for parameter in model.parameters()}
    return sum(distinct.values())
