"""Rounding of a layer's activations: its places and grids, and the hooks that do it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from ...errors import ConfigError
from ..anatomy import ScoresQuantizer, hook_each_call, hook_scores, module_at
from ..quantization import ActivationQuantizer, DynamicQuantizer, OutputQuantizer, StraightThrough
from ..values import LayerSpec
from ._calibration import Calibration, activation_qparams, output_key, scores_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """Places where a layer's activations are rounded, and their grids.

    input_at    fqn of the module before which the layer's input is rounded: the layer, or one around it
    input       (scale, zero_point); None: a range for each token, found when it runs
    calls       (scale, zero_point) of the first, second, … call in a forward pass; further calls have `input`
    output_at   fqn of the module behind which the layer's output is rounded; "" where it is not
    output      (scale, zero_point) of the output, where it is rounded
    product_in  fqn of the module in whose forward the output is a factor of a product of attention; None: of none
    scores      (scale, zero_point) of attention's scores in that module, where the output is the values
    """

    bits: int
    input_at: str
    input: tuple[float, int] | None
    output_at: str = ""
    output: tuple[float, int] | None = None
    product_in: str | None = None
    scores: tuple[float, int] | None = None
    calls: tuple[tuple[float, int], ...] = ()


def rounding_of(calibration: Calibration | None, fqn: str, spec: LayerSpec) -> Rounding:
    """Rounding of a layer with `changes_activation`. Raises `ConfigError` where a range that it needs was not
    calibrated.
    """
    if not spec.needs_range:
        return Rounding(bits=spec.activation_bits, input_at=fqn, input=None)
    params = activation_qparams(calibration, fqn, spec)
    if spec.activation_scope == "layer" or calibration is None:
        calls = () if calibration is None else calibration.call_qparams(fqn, spec)
        return Rounding(bits=spec.activation_bits, input_at=fqn, input=params, calls=calls)
    if spec.rounds_products:
        return _rounding_of_product(calibration, fqn, spec, params)
    if fqn not in calibration.places:
        raise ConfigError(
            f"{fqn} is to be {spec.label()}, whose activation_scope 'tensor' needs to know the other consumers of "
            "its input and output; calibrate with tensors=True, or, if there are none, take activation_scope "
            "'layer'"
        )
    shared_input, residual_output = calibration.places[fqn]
    return Rounding(
        bits=spec.activation_bits, input_at=shared_input or fqn, input=params, output_at=residual_output,
        output=calibration.qparams(output_key(fqn), spec) if residual_output else None,
        calls=() if shared_input else calibration.call_qparams(fqn, spec),
    )  # fmt: skip


def _rounding_of_product(calibration: Calibration, fqn: str, spec: LayerSpec, params: tuple[float, int]) -> Rounding:
    """Rounding of the factors of an attention product.

    Integer products take factors without zero point, whatever the scheme of the layer's input. Scores are never
    negative and have no zero point either.
    """
    if fqn not in calibration.products:
        raise ConfigError(
            f"{fqn} is to be {spec.label()}, whose activation_scope 'product' needs the range of its output in a "
            "product of attention; calibrate with products=True, or, if it has no such product, take activation_scope "
            "'layer'"
        )
    product, inside = calibration.products[fqn]
    symmetric, affine = (replace(spec, activation_scheme=scheme) for scheme in ("symmetric", "affine"))
    return Rounding(
        bits=spec.activation_bits, input_at=fqn, input=params, output_at=fqn,
        output=calibration.qparams(output_key(fqn), symmetric), product_in=inside,
        scores=calibration.qparams(scores_key(fqn), affine) if product == "value" else None,
    )  # fmt: skip


def install(
    model: nn.Module, roundings: Iterable[Rounding], *, straight_through: bool = False
) -> list[RemovableHandle]:
    """Install hooks on `model` that round so; equal rounding at the same place is done once.

    straight_through  while gradients are taken, the gradient passes inside the range as if nothing were rounded
    """
    handles: list[RemovableHandle] = []
    wrap: Any = StraightThrough if straight_through else lambda quantizer: quantizer
    done = set()
    for rounding in roundings:
        before = (rounding.input_at, rounding.input, rounding.bits, rounding.calls)
        if rounding.input is None:
            module = module_at(model, rounding.input_at)
            handles.append(module.register_forward_pre_hook(wrap(DynamicQuantizer(rounding.bits)), with_kwargs=True))
        elif before not in done:
            done.add(before)
            each = [wrap(ActivationQuantizer(*params, rounding.bits)) for params in (*rounding.calls, rounding.input)]
            if rounding.calls:
                handles += hook_each_call(model, rounding.input_at, each[:-1], each[-1])
            else:
                place = module_at(model, rounding.input_at)
                handles.append(place.register_forward_pre_hook(each[-1], with_kwargs=True))
        if rounding.output is not None:
            after = wrap(OutputQuantizer(*rounding.output, rounding.bits))
            handles.append(module_at(model, rounding.output_at).register_forward_hook(after))
        if rounding.product_in is not None and rounding.scores is not None:
            scores = ScoresQuantizer(*rounding.scores, rounding.bits, straight_through=straight_through)
            handles += hook_scores(module_at(model, rounding.product_in), scores)
    return handles


def activation_quantizer(
    calibration: Calibration | None, fqn: str, spec: LayerSpec, call: int = 0
) -> ActivationQuantizer | DynamicQuantizer:
    """Quantizer hook for the input of a layer with `changes_activation`, at this call of a forward pass (from 0).

    Raises as `activation_qparams`.
    """
    if not spec.needs_range:
        return DynamicQuantizer(spec.activation_bits)
    params = activation_qparams(calibration, fqn, spec)
    calls = () if calibration is None else calibration.call_qparams(fqn, spec)
    return ActivationQuantizer(*(calls[call] if call < len(calls) else params), spec.activation_bits)
