"""How each layer leaves PyTorch, and a copy of the model that is ready to leave."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...compressors import Calibration, LayerSpec, Variant, module_at
from ...compressors.quantization import dynamic_quantize
from ...errors import ConfigError
from ._base import ExportError

ActivationOp = Callable[[Tensor, "Lowered"], Tensor]
"""(x, layer) -> fake-quantized x; how that is written down is the format's affair."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lowered:
    """One layer as a runtime gets it. At most one of `codes` and `factors` is there; with neither, `effective` is used.

    effective   dense FP32 weight of the old shape, or None where the weight is the original's
    codes       int8, the weight's shape; `scales` (out,): effective = codes * scales
    factors     (U [out, r], V [r, in * kernel]): effective = U @ V
    activation  (scale, zero_point) of the input as uint8, or None
    activation_bits  of the input's codes, at most 8: fewer are a clamped uint8
    dynamic     of the input: the range is that of each token (of a convolution: each sample), in ordinary operations
    is_open     whoever exports writes the weight in a form of its own, which none of the above says
    """

    fqn: str
    effective: Tensor | None = None
    codes: Tensor | None = None
    scales: Tensor | None = None
    factors: tuple[Tensor, Tensor] | None = None
    activation: tuple[float, int] | None = None
    activation_bits: int = 8
    dynamic: bool = False
    is_open: bool = False

    @property
    def is_int8(self) -> bool:
        return self.codes is not None

    @property
    def is_structured(self) -> bool:
        """Whether the weight is stored as something other than one dense FP32 tensor."""
        return self.codes is not None or self.factors is not None or self.is_open


def lower(
    assignment: Mapping[str, LayerSpec],
    variants: Mapping[str, Variant],
    calibration: Calibration | None,
) -> list[Lowered]:
    """What each layer that is not neutral becomes on a CPU runtime.

    Weight of plain integers (`LayerSpec.is_plain_int`) and activation with a calibrated range: int8 codes. Low rank:
    two factors, in FP32. Everything else, also weight-only quantization, sparsity, groups, palettes and floating
    formats, is the dense FP32 effective weight: no CPU kernel here is faster with less. A dynamic activation is
    quantized in FP32 arithmetic too.
    Raises `ConfigError` where a variant or an activation's range is missing.
    """
    return [_lower_one(fqn, spec, variants, calibration) for fqn, spec in assignment.items() if not spec.is_neutral]


def _lower_one(fqn: str, spec: LayerSpec, variants: Mapping[str, Variant], calibration: Calibration | None) -> Lowered:
    activation = activation_qparams(fqn, spec, calibration) if spec.needs_range else None
    dynamic = spec.changes_activation and not spec.needs_range
    bits = min(spec.activation_bits, 8)
    if not spec.changes_weight:
        return Lowered(fqn=fqn, activation=activation, activation_bits=bits, dynamic=dynamic)
    if fqn not in variants:
        raise ConfigError(f"no compressed weight was given for {fqn}, whose spec is {spec.label()}")
    variant = variants[fqn]
    if variant.spec != spec.weight_only:
        raise ConfigError(
            f"the variant given for {fqn} is {variant.spec.label()}, but the assignment says {spec.weight_only.label()}"
        )
    factors = variant.factors()
    coded = variant.codes() if activation is not None and factors is None else None
    codes, scales = coded if coded is not None else (None, None)
    return Lowered(
        fqn=fqn, effective=variant.effective, codes=codes, scales=scales, factors=factors, activation=activation,
        activation_bits=bits, dynamic=dynamic,
    )  # fmt: skip


def activation_qparams(fqn: str, spec: LayerSpec, calibration: Calibration | None) -> tuple[float, int]:
    """(scale, zero_point) of a layer's input. Raises `ConfigError` where it was not calibrated."""
    if calibration is None:
        raise ConfigError(
            f"{fqn} gets {spec.activation_bits}-bit activations, but no calibration was given; calibrate the model, or "
            "leave activation_bits at 32"
        )
    return calibration.qparams(fqn, spec)


def prepare(model: nn.Module, layers: Sequence[Lowered], activation_op: ActivationOp) -> nn.Module:
    """A copy of `model` in eval mode with the effective weights, and with `activation_op` before each layer that asks.

    Tied weights stay tied, except those of layers that are stored in another form (`Lowered.is_structured`): such a
    layer gets a parameter of its own, so that the graph can tell its weight from that of the layer it was tied to.
    """
    ready = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    dense_values = {layer.fqn: layer.effective for layer in layers if layer.effective is not None}
    for fqn, effective in dense_values.items():
        weight = _weight(ready, fqn)
        if weight.shape != effective.shape:
            raise ConfigError(
                f"the compressed weight of {fqn} has shape {tuple(effective.shape)}, the model's is "
                f"{tuple(weight.shape)}; it belongs to another model"
            )
        weight.data = effective.detach().to(weight.dtype).clone()
    for layer in layers:
        module = module_at(ready, layer.fqn)
        if layer.is_structured:
            module.weight = nn.Parameter(_weight(ready, layer.fqn).detach().clone(), requires_grad=False)
        if layer.activation is not None or layer.dynamic:
            module.register_forward_pre_hook(_before(module, layer, activation_op), with_kwargs=True)
    return ready


def _weight(model: nn.Module, fqn: str) -> nn.Parameter:
    weight = getattr(module_at(model, fqn), "weight", None)
    if not isinstance(weight, nn.Parameter):
        raise ExportError(f"{fqn} must have a parameter named weight, but it is {type(weight).__name__}")
    return weight


def _before(
    layer_module: nn.Module, layer: Lowered, activation_op: ActivationOp
) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    by_sample = isinstance(layer_module, nn.Conv1d | nn.Conv2d)

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
    """`x` within what a narrower activation can be: a uint8 quantizer then uses its lowest 2^bits codes only."""
    if layer.activation is None or layer.activation_bits == 8:
        return x
    scale, zero_point = layer.activation
    return torch.clamp(x, min=-zero_point * scale, max=(2**layer.activation_bits - 1 - zero_point) * scale)


def fake_quantize(x: Tensor, layer: Lowered) -> Tensor:
    """To uint8 and back in the most ordinary operations, in the order in which PyTorch's fake quantizer does them."""
    if layer.activation is None:
        return x
    scale, zero_point = layer.activation
    return (torch.clamp(torch.round(x * (1.0 / scale)) + zero_point, 0, 255) - zero_point) * scale
