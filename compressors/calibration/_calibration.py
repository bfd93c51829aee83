"""Calibration as a value: ranges of activations and, on request, moments and gradients, for each layer.

`_calibrate.py` makes it, and `_rounding.py` derives the rounding of activations from it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import ConfigError
from ..quantization import affine_qparams, symmetric_qparams
from ..values import LayerSpec
from ._gradients import Gradients
from ._moments import Moments

SCHEMA_VERSION = 2
DEFAULT_BITS = 8
DEFAULT_METHOD = LayerSpec().activation_method
MISSING = {
    "never ran": ("it never runs on the calibration data", "add calibration samples on which it runs"),
    "not finite": ("its input holds NaN or infinity on the calibration data", "keep them out of the model or the data"),
    "constant": (
        "its input is one and the same number on the calibration data",
        "add calibration samples on which it varies",
    ),
}
"""Kind of a missing statistic -> (what is the matter with a layer, what to do)."""


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
    """Mapping fqn -> range of the layer's input. Layers with integer inputs (embeddings) have none.

    ranges     ranges by the default method at 8 bits
    others     ranges by other methods and widths: the method's name ("percentile"), or name@bits at another width
               ("minmax@4") -> fqn -> range
    places     fqn -> (shared_input, residual_output) of `LayerInfo`, for layers that have either; filled by `calibrate`
               with tensors=True. The range of such a layer's output is in `ranges` and `others` under `output_key(fqn)`
    products   fqn -> (product, product_in) of `LayerInfo`; filled by `calibrate` with products=True. The range of the
               output is found as above; the range of the scores that multiply values is under `scores_key(fqn)`
    unmasked   layers whose inputs have other positions than the mask, so all of them count; not a part of `to_dict`
    missing    fqn, or key of an output -> why it has no range, one of `MISSING`; not a part of `to_dict`
    calls      ranges of each call of a layer that runs several times, by the keys of `others` ("minmax" at 8 bits too);
               further calls have the layer's one range, which covers them all
    moments    moments of the inputs, where `calibrate` was asked for them; not a part of `to_dict`
    gradients  gradients of the loss, where they were collected (`collect_gradients`); not a part of `to_dict`
    digest     sha256 over the ranges: it identifies the calibration of the activations
    """

    ranges: Mapping[str, ActivationRange]
    others: Mapping[str, Mapping[str, ActivationRange]] = field(default_factory=dict)
    moments: Moments | None = None
    gradients: Gradients | None = None
    places: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    products: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict, compare=False)
    unmasked: tuple[str, ...] = field(default=(), compare=False)
    calls: Mapping[str, Mapping[str, tuple[ActivationRange, ...]]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def qparams(self, fqn: str, spec: LayerSpec) -> tuple[float, int]:
        """(scale, zero_point) of the layer's input under `spec`. Raises `ConfigError` if it was not calibrated."""
        method = spec.activation_method
        key = ranges_key(method, spec.activation_bits)
        ranges = self.ranges if key == DEFAULT_METHOD else self.others.get(key, {})
        if fqn not in ranges and fqn in self.missing:
            why, remedy = MISSING[self.missing[fqn]]
            raise ConfigError(
                f"{fqn} is to have {spec.activation_bits}-bit activations, but {why}, so they have no range; {remedy}, "
                f"or compress its weights alone (activation_bits 32)"
            )
        if fqn not in ranges:
            raise ConfigError(
                f"{fqn} is to have {spec.activation_bits}-bit activations by {method!r}, but the calibration holds no "
                f"such range; calibrate for that width and method, on samples in which the layer runs on numbers, "
                f"or compress its weights alone (activation_bits 32)"
            )
        return ranges[fqn].qparams(spec.activation_bits, symmetric=spec.activation_scheme == "symmetric")

    def call_qparams(self, fqn: str, spec: LayerSpec) -> tuple[tuple[float, int], ...]:
        """(scale, zero_point) of the layer's input at each call; empty where `qparams` serves all calls."""
        ranges = self.calls.get(ranges_key(spec.activation_method, spec.activation_bits), {}).get(fqn, ())
        symmetric = spec.activation_scheme == "symmetric"
        return tuple(one.qparams(spec.activation_bits, symmetric=symmetric) for one in ranges)

    def to_dict(self) -> dict[str, Any]:
        data: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "ranges": _ranges_to_dict(self.ranges)}
        if self.others:
            data["others"] = {method: _ranges_to_dict(ranges) for method, ranges in self.others.items()}
        if self.places:
            data["places"] = {fqn: list(place) for fqn, place in self.places.items()}
        if self.products:
            data["products"] = {fqn: list(product) for fqn, product in self.products.items()}
        if self.calls:
            data["calls"] = {
                key: {fqn: [_range_to_dict(one) for one in ranges] for fqn, ranges in by_layer.items()}
                for key, by_layer in self.calls.items()
            }
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        """Inverse of `to_dict`. Raises `ConfigError` for an unknown key or schema version."""
        if unknown := sorted(set(data) - {"schema_version", "ranges", "others", "places", "products", "calls"}):
            raise ConfigError(
                f"unknown key {unknown[0]!r} in a calibration; known are schema_version, ranges, others, places, "
                "products, calls"
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
        calls = {
            key: {fqn: tuple(_range_from_dict(fqn, one) for one in found) for fqn, found in by_layer.items()}
            for key, by_layer in data.get("calls", {}).items()
        }
        return cls(
            ranges=_ranges_from_dict(data.get("ranges", {})), others=others, places=places, products=products,
            calls=calls,
        )  # fmt: skip


def activation_qparams(calibration: Calibration | None, fqn: str, spec: LayerSpec) -> tuple[float, int]:
    """Return `calibration.qparams(...)`; raise a `ConfigError` where there is no calibration."""
    if calibration is None:
        raise ConfigError(
            f"{fqn} is to have {spec.activation_bits}-bit activations, which needs a calibration; none was given"
        )
    return calibration.qparams(fqn, spec)


def ranges_key(method: str, bits: int) -> str:
    """Key of the ranges by a method at a width in `Calibration.others`."""
    return method if bits == DEFAULT_BITS else f"{method}@{bits}"


def output_key(fqn: str) -> str:
    """Key of the range of a layer's output in a calibration."""
    return f"{fqn}:output"


def scores_key(fqn: str) -> str:
    """Key of the range of the attention scores that multiply the layer's output (attention's values)."""
    return f"{fqn}:scores"


def _ranges_to_dict(ranges: Mapping[str, ActivationRange]) -> dict[str, Any]:
    return {fqn: _range_to_dict(one) for fqn, one in ranges.items()}


def _range_to_dict(one: ActivationRange) -> dict[str, Any]:
    return {"low": one.low, "high": one.high, "n": one.n}


def _ranges_from_dict(data: Mapping[str, Any]) -> dict[str, ActivationRange]:
    return {fqn: _range_from_dict(fqn, values) for fqn, values in data.items()}


def _range_from_dict(fqn: str, values: Any) -> ActivationRange:
    if not isinstance(values, Mapping) or set(values) - {"n"} != {"low", "high"}:
        raise ConfigError(f"the activation range of {fqn} must have low, high and n, got {values!r}")
    return ActivationRange(low=float(values["low"]), high=float(values["high"]), n=int(values.get("n", 0)))
