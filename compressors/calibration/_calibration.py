"""Calibration of a model in one pass over real data: ranges of activations and, on request, moments of the inputs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...errors import ConfigError, InputError
from .. import quantization  # noqa: F401  (registers the built-in activation method)
from ..anatomy import Anatomy, ScoresQuantizer, forward, hook_scores, module_at, preserved
from ..quantization import (
    ActivationQuantizer,
    DynamicQuantizer,
    OutputQuantizer,
    StraightThrough,
    affine_qparams,
    symmetric_qparams,
)
from ..registry import ACTIVATION
from ..values import LayerSpec
from ._gradients import Gradients
from ._moments import MomentCollector, Moments

SCHEMA_VERSION = 2
_SAMPLE = 32768
_BITS = 8
_DEFAULT = LayerSpec().activation_method


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationRange:
    """Clipping range of a layer's input: low <= 0 <= high. `n` is the number of values that were seen."""

    low: float
    high: float
    n: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= 0.0 <= self.high):
            raise ConfigError(f"an activation range must be finite and hold zero, got [{self.low}, {self.high}]")

    def qparams(self, bits: int, *, symmetric: bool = False) -> tuple[float, int]:
        """(scale, zero_point) of the unsigned grid; the scale is exactly a float32. An empty range gives scale 1."""
        return (symmetric_qparams if symmetric else affine_qparams)(self.low, self.high, bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """fqn -> range of the layer's input. Layers with integer inputs (embeddings) have none.

    ranges   by the default method at 8 bits; other methods and widths have theirs in `others`, under the method's name
             ("percentile") or, at another width, name@bits ("minmax@4") -> fqn -> range
    places   fqn -> (shared_input, sum_after) of `LayerInfo`, of the layers that have either, where `calibrate` was
             asked for tensors; the range of a layer's output then stands in the mappings above under `output_key(fqn)`
    products fqn -> (product, product_in) of `LayerInfo`, where `calibrate` was asked for them; the output's range is as
             above, that of the scores behind which values stand under `scores_key(fqn)`
    moments  of the inputs, where `calibrate` was asked for them; they are no part of `to_dict`
    gradients  of the loss, where `collect_gradients` was asked for them and they were put here; likewise
    digest   sha256 over the ranges: it identifies the calibration of the activations
    """

    ranges: Mapping[str, ActivationRange]
    others: Mapping[str, Mapping[str, ActivationRange]] = field(default_factory=dict)
    moments: Moments | None = None
    gradients: Gradients | None = None
    places: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    products: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def qparams(self, fqn: str, spec: LayerSpec) -> tuple[float, int]:
        """(scale, zero_point) of the layer's input under `spec`. Raises `ConfigError` if it was not calibrated."""
        method = spec.activation_method
        key = _key(method, spec.activation_bits)
        ranges = self.ranges if key == _DEFAULT else self.others.get(key, {})
        if fqn not in ranges:
            raise ConfigError(
                f"{fqn} is to have {spec.activation_bits}-bit activations by {method!r}, but the calibration holds no "
                f"such range; calibrate with bits={spec.activation_bits} among its widths, and with a batch in which "
                f"the layer runs on floating-point inputs"
            )
        return ranges[fqn].qparams(spec.activation_bits, symmetric=spec.activation_scheme == "symmetric")

    def to_dict(self) -> dict[str, Any]:
        data: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "ranges": _ranges_to_dict(self.ranges)}
        if self.others:
            data["others"] = {method: _ranges_to_dict(ranges) for method, ranges in self.others.items()}
        if self.places:
            data["places"] = {fqn: list(place) for fqn, place in self.places.items()}
        if self.products:
            data["products"] = {fqn: list(product) for fqn, product in self.products.items()}
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        """Inverse of `to_dict`. Raises `ConfigError` for an unknown key or schema version."""
        if unknown := sorted(set(data) - {"schema_version", "ranges", "others", "places", "products"}):
            raise ConfigError(
                f"unknown key {unknown[0]!r} in a calibration; known are schema_version, ranges, others, places, "
                "products"
            )
        if data.get("schema_version") != SCHEMA_VERSION:
            raise ConfigError(
                f"a calibration of schema_version {SCHEMA_VERSION} is expected, got {data.get('schema_version')!r}; "
                f"calibrate again"
            )
        others = {method: _ranges_from_dict(ranges) for method, ranges in data.get("others", {}).items()}
        places, products = (
            {fqn: (str(one), str(other)) for fqn, (one, other) in data.get(key, {}).items()}
            for key in ("places", "products")
        )
        return cls(ranges=_ranges_from_dict(data.get("ranges", {})), others=others, places=places, products=products)


def activation_qparams(calibration: Calibration | None, fqn: str, spec: LayerSpec) -> tuple[float, int]:
    """Return `calibration.qparams(...)`; raise a `ConfigError` where there is no calibration."""
    if calibration is None:
        raise ConfigError(
            f"{fqn} is to have {spec.activation_bits}-bit activations, which needs a calibration; none was given"
        )
    return calibration.qparams(fqn, spec)


def output_key(fqn: str) -> str:
    """Key of the range of a layer's output in a calibration."""
    return f"{fqn}:output"


def scores_key(fqn: str) -> str:
    """Key of the range of the attention scores that multiply the layer's output (attention's values)."""
    return f"{fqn}:scores"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """Places where a layer's activations are rounded, and their grids.

    input_at    fqn of the module before which the layer's input is rounded: the layer, or one around it
    input       (scale, zero_point); None: a range for each token, found when it runs
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


def rounding_of(calibration: Calibration | None, fqn: str, spec: LayerSpec) -> Rounding:
    """Rounding of a layer with `changes_activation`. Raises `ConfigError` where a range that it needs was not
    calibrated.
    """
    if not spec.needs_range:
        return Rounding(bits=spec.activation_bits, input_at=fqn, input=None)
    params = activation_qparams(calibration, fqn, spec)
    if spec.activation_scope == "layer" or calibration is None:
        return Rounding(bits=spec.activation_bits, input_at=fqn, input=params)
    if spec.rounds_products:
        return _rounding_of_product(calibration, fqn, spec, params)
    if fqn not in calibration.places:
        raise ConfigError(
            f"{fqn} is to be {spec.label()}, whose activation_scope 'tensor' needs to know who else reads its input "
            "and what it is added to; calibrate with tensors=True, or, if it is alone with both, take activation_scope "
            "'layer'"
        )
    shared_input, residual_output = calibration.places[fqn]
    return Rounding(
        bits=spec.activation_bits, input_at=shared_input or fqn, input=params, output_at=residual_output,
        output=calibration.qparams(output_key(fqn), spec) if residual_output else None,
    )  # fmt: skip


def _rounding_of_product(calibration: Calibration, fqn: str, spec: LayerSpec, params: tuple[float, int]) -> Rounding:
    """Rounding of the factors of an attention product.

    Integer products take factors without zero point, whatever the scheme of the layer's input. Scores are never
    negative and have no zero point either.
    """
    if fqn not in calibration.products:
        raise ConfigError(
            f"{fqn} is to be {spec.label()}, whose activation_scope 'product' needs the range of what it gives to a "
            "product of attention; calibrate with products=True, or, if it gives nothing to one, take activation_scope "
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
        before = (rounding.input_at, rounding.input, rounding.bits)
        if rounding.input is None:
            module = module_at(model, rounding.input_at)
            handles.append(module.register_forward_pre_hook(wrap(DynamicQuantizer(rounding.bits)), with_kwargs=True))
        elif before not in done:
            done.add(before)
            quantizer = wrap(ActivationQuantizer(*rounding.input, rounding.bits))
            handles.append(module_at(model, rounding.input_at).register_forward_pre_hook(quantizer, with_kwargs=True))
        if rounding.output is not None:
            after = wrap(OutputQuantizer(*rounding.output, rounding.bits))
            handles.append(module_at(model, rounding.output_at).register_forward_hook(after))
        if rounding.product_in is not None and rounding.scores is not None:
            scores = ScoresQuantizer(*rounding.scores, rounding.bits, straight_through=straight_through)
            handles += hook_scores(module_at(model, rounding.product_in), scores)
    return handles


def activation_quantizer(
    calibration: Calibration | None, fqn: str, spec: LayerSpec
) -> ActivationQuantizer | DynamicQuantizer:
    """Quantizer hook for the input of a layer with `changes_activation`, anywhere. Raises as `activation_qparams`."""
    if not spec.needs_range:
        return DynamicQuantizer(spec.activation_bits)
    return ActivationQuantizer(*activation_qparams(calibration, fqn, spec), spec.activation_bits)


def calibrate(
    model: nn.Module,
    batches: Iterable[object],
    anatomy: Anatomy,
    *,
    bits: Sequence[int] = (_BITS,),
    moments: bool = False,
    means: bool = False,
    tensors: bool = False,
    products: bool = False,
) -> Calibration:
    """Run `model` on every batch (see `forward`), once, and choose ranges for the input of each layer.

    Streaming: of each layer the extremes of all values are kept, and a sample spread evenly over them, at most
    32768 values. The model is left as it was. Raises `InputError` if there is no batch, or if a layer's input holds
    NaN or infinity.

    bits     widths to choose ranges for, 8 always among them; by every registered method
    tensors  choose ranges for what goes into sums too, which `activation_scope` tensor needs
    products choose ranges for what goes into products of attention too, which `activation_scope` product needs
    moments  collect the inputs' second moments too, which methods such as "gptq" need (see `_moments.py`)
    means    collect their means, which are cheap and come with the moments anyway
    """
    collector = MomentCollector(model, anatomy, second=moments) if moments or means else None
    watchers = {
        layer.fqn: _Watcher(layer.fqn) for layer in anatomy.layers if layer.kind != "embedding" and not layer.is_fused
    }
    places = {
        x.fqn: (x.shared_input, x.residual_output)
        for x in anatomy.layers
        if tensors and (x.shared_input or x.residual_output)
    }
    multiplied = {x.fqn: (x.product, x.product_in) for x in anatomy.layers if products and x.product}
    n_batches = 0
    handles = []
    try:
        for fqn, watcher in watchers.items():
            handles.append(module_at(model, fqn).register_forward_pre_hook(watcher, with_kwargs=True))
        for fqn, (_, after) in places.items():
            if after:
                relu = anatomy[fqn].relu_before_mean
                watchers[output_key(fqn)] = given = _Watcher(f"{fqn}, behind {after},", positive=relu)
                handles.append(module_at(model, after).register_forward_hook(given.see_output))
        for fqn, (product, inside) in multiplied.items():
            watchers[output_key(fqn)] = given = _Watcher(f"a product of attention, which {fqn} gives,")
            handles.append(module_at(model, fqn).register_forward_hook(given.see_output))
            if product == "value":
                watchers[scores_key(fqn)] = scores = _Watcher(f"a product of attention, with what {fqn} gives,")
                handles += hook_scores(module_at(model, inside), scores.see_scores)
        with preserved(model), ExitStack() as stack:
            if collector is not None:
                stack.enter_context(collector.watching())
            for inputs in batches:
                forward(model, inputs)
                n_batches += 1
    finally:
        for handle in handles:
            handle.remove()
    if n_batches == 0:
        raise InputError("calibration needs at least one batch, got none; is the calibration split empty?")
    by_method = {
        _key(name, width): {fqn: watcher.range(name, width) for fqn, watcher in watchers.items() if watcher.n > 0}
        for width in dict.fromkeys((_BITS, *bits))
        for name in ACTIVATION.names
    }
    return Calibration(
        ranges=by_method.pop(_DEFAULT),
        others=by_method,
        moments=None if collector is None else collector.result(anatomy),
        places=places,
        products=multiplied,
    )


def _key(method: str, bits: int) -> str:
    return method if bits == _BITS else f"{method}@{bits}"


class _Watcher:
    """Forward pre-hook that keeps the extremes and an even sample of a layer's inputs.

    positive  take only the values that a ReLU lets pass
    """

    def __init__(self, fqn: str, *, positive: bool = False) -> None:
        self.fqn, self.positive = fqn, positive
        self.n = 0
        self.low = 0.0
        self.high = 0.0
        self.stride = 1
        self.sample = torch.empty(0)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._see(args[0] if args else kwargs.get("input"))

    def see_output(self, module: nn.Module, args: object, output: object) -> None:
        """Forward hook that sees outputs in the same way."""
        self._see(output)

    def see_scores(self, scores: Tensor) -> Tensor:
        """Observe attention's scores in the same way."""
        self._see(scores)
        return scores

    def _see(self, x: object) -> None:
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.numel() == 0:
            return
        x = x.detach().reshape(-1)
        x = x.clamp(min=0.0) if self.positive else x
        low, high = float(x.min()), float(x.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError(
                f"the input of {self.fqn} holds NaN or infinity on the calibration data; check the data and the weights"
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        start = -self.n % self.stride
        self.sample = torch.cat([self.sample, x[start :: self.stride].float().cpu()])
        self.n += x.numel()
        while self.sample.numel() > _SAMPLE:
            self.sample = self.sample[::2].clone()
            self.stride *= 2

    def range(self, method: str, bits: int) -> ActivationRange:
        low, high = ACTIVATION[method](self.sample, self.low, self.high, bits)
        return ActivationRange(low=min(0.0, float(low)), high=max(0.0, float(high)), n=self.n)


def _ranges_to_dict(ranges: Mapping[str, ActivationRange]) -> dict[str, Any]:
    return {fqn: {"low": r.low, "high": r.high, "n": r.n} for fqn, r in ranges.items()}


def _ranges_from_dict(data: Mapping[str, Any]) -> dict[str, ActivationRange]:
    ranges = {}
    for fqn, values in data.items():
        if not isinstance(values, Mapping) or set(values) - {"n"} != {"low", "high"}:
            raise ConfigError(f"the activation range of {fqn} must have low, high and n, got {values!r}")
        ranges[fqn] = ActivationRange(low=float(values["low"]), high=float(values["high"]), n=int(values.get("n", 0)))
    return ranges
