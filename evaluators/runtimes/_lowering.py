"""Lowering of each layer for an export, and a copy of the model that is ready for it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...compressors import Calibration, LayerSpec, Rounding, Variant, module_at, rounding_of, weight_at
from ...compressors.anatomy import holder_of, hook_each_call
from ...compressors.quantization import dynamic_quantize
from ...compressors.values import is_inner
from ...errors import ConfigError
from ._base import ExportError
from ._chain import Chain, chain_of, run_as_chain
from ._narrow import NarrowRule, NarrowWeight

ActivationOp = Callable[[Tensor, "Lowered"], Tensor]
"""Function (x, layer) -> fake-quantized x; each format writes it in its own way."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lowered:
    """Layer as a runtime gets it. At most one of `codes`, `narrow`, `half`, `factors` is there; else `effective`.

    effective   dense FP32 weight of the old shape, or None where the weight is the original's
    codes       int8, the weight's shape; `scales` (out,): effective = codes * scales
    narrow      the weight of a linear layer as `NarrowWeight`, for a kernel that widens it as it multiplies
    half        `effective` of a linear layer or an embedding, in the FP16 or BF16 that it was rounded to
    factors     (U [out, r], V [r, in * kernel]): effective = U @ V
    chain       form and parts of another form of low rank, see `_chain.py`; `effective` is there too
    activation  (scale, zero_point) of the input as uint8, or None
    calls       (scale, zero_point) of the first, second, … call in a forward pass; further calls have `activation`
    activation_at  fqn of the module before which the input is rounded; "" for the layer itself
    output      (scale, zero_point) of what the module `output_at` gives, where that is rounded too
    activation_bits  of the input's codes, at most 8: fewer are a clamped uint8
    dynamic     of the input: the range is that of each token (of a convolution: each sample). With `codes` it is a
                linear layer whose product is one of integers, else all is in ordinary operations
    product_in  fqn of the module in which that output is a factor of a product of attention; None: of none
    scores      (scale, zero_point) of the scores there, where the output is the values
    of_product  of an output's quantizer: whether it is such a factor
    is_open     whoever exports writes the weight in a form of its own, which none of the above says
    """

    fqn: str
    effective: Tensor | None = None
    codes: Tensor | None = None
    scales: Tensor | None = None
    narrow: NarrowWeight | None = None
    half: Tensor | None = None
    factors: tuple[Tensor, Tensor] | None = None
    activation: tuple[float, int] | None = None
    activation_bits: int = 8
    dynamic: bool = False
    chain: Chain | None = None
    activation_at: str = ""
    output: tuple[float, int] | None = None
    output_at: str = ""
    product_in: str | None = None
    scores: tuple[float, int] | None = None
    of_product: bool = False
    is_open: bool = False
    calls: tuple[tuple[float, int], ...] = ()

    @property
    def is_int8(self) -> bool:
        return self.codes is not None

    @property
    def is_structured(self) -> bool:
        """Tell whether the weight is stored as something other than one dense FP32 tensor."""
        return self.is_open or any(form is not None for form in (self.codes, self.narrow, self.half, self.factors))


def lower(
    assignment: Mapping[str, LayerSpec],
    variants: Mapping[str, Variant],
    calibration: Calibration | None,
    narrow: NarrowRule | None = None,
    dynamic_from: int | None = None,
) -> list[Lowered]:
    """Lowered form of each layer that is not neutral, on a CPU runtime.

    Weight of plain integers (`LayerSpec.is_plain_int`) and activation with a calibrated range: int8 codes. Low rank:
    two factors, in FP32, or a chain of convolutions (`_chain.py`). Weight-only integers, in groups or not, of the
    linear layers that `narrow` chooses: their codes, widened as they are multiplied. Everything else, also sparsity,
    palettes and floating formats, is the dense FP32 effective weight: no CPU kernel here is faster with less. A dynamic
    activation is quantized in FP32 arithmetic, but for linear layers of plain integers and 8 bits whose inputs and
    outputs are `dynamic_from` and more: these keep their codes (None: none does).
    Raises `ConfigError` where a variant or an activation's range is missing.
    """
    return [
        _lower_one(fqn, spec, variants, calibration, narrow, dynamic_from)
        for fqn, spec in assignment.items()
        if not spec.is_neutral
    ]


def _lower_one(
    fqn: str,
    spec: LayerSpec,
    variants: Mapping[str, Variant],
    calibration: Calibration | None,
    narrow: NarrowRule | None,
    dynamic_from: int | None,
) -> Lowered:
    rounding = rounding_of(calibration, fqn, spec) if spec.changes_activation else None
    rounded = Lowered(fqn=fqn) if rounding is None else _rounded(fqn, rounding)
    if not spec.changes_weight:
        return rounded
    if fqn not in variants:
        raise ConfigError(f"no compressed weight was given for {fqn}, whose spec is {spec.label()}")
    variant = variants[fqn]
    if variant.spec != spec.weight_only:
        raise ConfigError(
            f"the variant given for {fqn} is {variant.spec.label()}, but the assignment says {spec.weight_only.label()}"
        )
    factors = variant.factors()
    integer = rounded.activation is not None or runs_dynamic(spec, tuple(variant.effective.shape), dynamic_from)
    coded = variant.codes() if integer and factors is None else None
    codes, scales = coded if coded is not None else (None, None)
    if is_inner(fqn):  # its product is part of a larger operator, which takes FP32
        narrow = None
    narrowed = narrow.of(variant) if narrow is not None and not spec.changes_activation else None
    half = _half(spec, variant) if narrow is not None else None
    return replace(
        rounded, effective=variant.effective, codes=codes, scales=scales, factors=factors, narrow=narrowed, half=half,
        chain=chain_of(variant),
    )  # fmt: skip


def runs_dynamic(spec: LayerSpec, shape: tuple[int, ...], dynamic_from: int | None) -> bool:
    """Tell whether a layer's product is one of integers whose ranges are found at run time.

    It must be a linear layer wide enough to repay the search for each token's range.
    """
    wide = dynamic_from is not None and len(shape) == 2 and min(shape) >= dynamic_from
    return wide and spec.is_dynamic_int8 and spec.rank >= 1.0


def _half(spec: LayerSpec, variant: Variant) -> Tensor | None:
    """Weight in FP16 or BF16. A convolution's is folded with its batch norm, and is FP16 no more."""
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(spec.weight_format)
    if dtype is None or spec.rank < 1.0 or variant.effective.dim() != 2:
        return None
    return variant.effective.to(dtype)


def _rounded(fqn: str, rounding: Rounding) -> Lowered:
    return Lowered(
        fqn=fqn, activation=rounding.input, activation_bits=min(rounding.bits, 8), dynamic=rounding.input is None,
        activation_at="" if rounding.input_at == fqn else rounding.input_at,
        output=rounding.output, output_at=rounding.output_at, product_in=rounding.product_in, scores=rounding.scores,
        calls=rounding.calls,
    )  # fmt: skip


def prepare(model: nn.Module, layers: Sequence[Lowered], activation_op: ActivationOp) -> nn.Module:
    """Copy `model` in eval mode with the effective weights, and with `activation_op` before each layer that asks for
    it.

    Tied weights stay tied, except those of layers that are stored in another form (`Lowered.is_structured`): such a
    layer gets a parameter of its own, so that the graph can tell its weight from that of the layer it was tied to.
    """
    ready = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    dense_values = {layer.fqn: layer.effective for layer in layers if layer.effective is not None}
    for fqn, effective in dense_values.items():
        weight = weight_at(ready, fqn)
        if weight.shape != effective.shape:
            raise ConfigError(
                f"the compressed weight of {fqn} has shape {tuple(effective.shape)}, the model's is "
                f"{tuple(weight.shape)}; it belongs to another model"
            )
        weight.data = effective.detach().to(weight.dtype).clone()
    for layer in layers:
        if layer.is_structured:
            module, leaf = holder_of(ready, layer.fqn)
            setattr(module, leaf, nn.Parameter(weight_at(ready, layer.fqn).detach().clone(), requires_grad=False))
        if layer.chain is not None:
            run_as_chain(module_at(ready, layer.fqn), layer.chain)
    _install(ready, layers, activation_op)
    return ready


def refuse_products(layers: Sequence[Lowered], where: str) -> None:
    """Refuse rounding that only `onnx/_attention.py` can write. Raises `ExportError`, naming the layer."""
    for layer in layers:
        if layer.product_in is not None:
            raise ExportError(
                f"{layer.fqn} rounds a factor of a product of attention, and {where} has no such place; give it "
                "activation_scope 'layer', or take the format 'onnx', 'openvino' or 'paredown'"
            )


def _install(ready: nn.Module, layers: Sequence[Lowered], activation_op: ActivationOp) -> None:
    """Install the roundings; equal rounding at the same place is done once."""
    done = set()
    for layer in layers:
        place = (layer.activation_at or layer.fqn, layer.activation, layer.activation_bits, layer.calls)
        if (layer.dynamic and not layer.is_int8) or (layer.activation is not None and place not in done):
            done.add(place)
            module = module_at(ready, layer.fqn)
            hook = _before(module, layer, activation_op)
            each = [_before(module, replace(layer, activation=params), activation_op) for params in layer.calls]
            if each:
                hook_each_call(ready, place[0], each, hook)
            else:
                module_at(ready, place[0]).register_forward_pre_hook(hook, with_kwargs=True)
        if layer.output is not None:
            module_at(ready, layer.output_at).register_forward_hook(_behind(layer, activation_op))


def _behind(layer: Lowered, activation_op: ActivationOp) -> Callable[..., Any]:
    given = replace(layer, activation=layer.output, of_product=layer.product_in is not None)

    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return activation_op(clamped(output, given), given) if isinstance(output, Tensor) else output

    return hook


def _before(
    layer_module: nn.Module, layer: Lowered, activation_op: ActivationOp
) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    by_sample = isinstance(layer_module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d)

    def hook(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (_applied(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "input": _applied(kwargs["input"])} if "input" in kwargs else kwargs

    def _applied(x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return x  # an embedding's indices are not quantized
        if layer.dynamic:
            return dynamic_quantize(x, layer.activation_bits, by_sample)
        return activation_op(clamped(x, layer), layer)

    return hook


def clamped(x: Tensor, layer: Lowered) -> Tensor:
    """Clamp `x` to the range of a narrower activation: a uint8 quantizer then uses its lowest 2^bits codes only."""
    if layer.activation is None or layer.activation_bits == 8:
        return x
    scale, zero_point = layer.activation
    return torch.clamp(x, min=-zero_point * scale, max=(2**layer.activation_bits - 1 - zero_point) * scale)


def fake_quantize(x: Tensor, layer: Lowered) -> Tensor:
    """Round to uint8 and back in the most ordinary operations, in the order of PyTorch's own fake quantizer."""
    if layer.activation is None:
        return x
    scale, zero_point = layer.activation
    return (torch.clamp(torch.round(x * (1.0 / scale)) + zero_point, 0, 255) - zero_point) * scale
