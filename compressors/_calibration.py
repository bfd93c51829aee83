"""The ranges of the activations that enter each layer, from a pass over real data."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, InputError
from . import quantization  # noqa: F401  (registers the built-in activation method)
from ._anatomy import Anatomy
from ._forward import forward, module_at, preserved
from ._registry import ACTIVATION
from ._spec import LayerSpec
from .quantization._activation import affine_qparams

SCHEMA_VERSION = 1
_SAMPLE = 32768
_BITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationRange:
    """Where a layer's input is clipped: low <= 0 <= high. `n` is the number of values that were seen."""

    low: float
    high: float
    n: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= 0.0 <= self.high):
            raise ConfigError(f"an activation range must be finite and hold zero, got [{self.low}, {self.high}]")

    def qparams(self, bits: int) -> tuple[float, int]:
        """(scale, zero_point) of the unsigned affine grid; the scale is exactly a float32. Empty range: (1.0, 0)."""
        return affine_qparams(self.low, self.high, bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """fqn -> range of the layer's input. Layers with integer inputs (embeddings) have none.

    ranges  by the method "affine"; other registered methods have theirs in `others`, method -> fqn -> range
    digest  sha256 over the ranges: it identifies the calibration
    """

    ranges: Mapping[str, ActivationRange]
    others: Mapping[str, Mapping[str, ActivationRange]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def qparams(self, fqn: str, spec: LayerSpec) -> tuple[float, int]:
        """(scale, zero_point) for the layer's input under `spec`. Raises `ConfigError` if it was not calibrated."""
        method = spec.activation_method
        ranges = self.ranges if method == "affine" else self.others.get(method, {})
        if fqn not in ranges:
            raise ConfigError(
                f"{fqn} is to have {spec.activation_bits}-bit activations by {method!r}, but the calibration holds no "
                f"such range; calibrate with a batch in which the layer runs on floating-point inputs"
            )
        return ranges[fqn].qparams(spec.activation_bits)

    def to_dict(self) -> dict[str, Any]:
        data: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "ranges": _ranges_to_dict(self.ranges)}
        if self.others:
            data["others"] = {method: _ranges_to_dict(ranges) for method, ranges in self.others.items()}
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        """Raises `ConfigError` for an unknown key or schema version."""
        if unknown := sorted(set(data) - {"schema_version", "ranges", "others"}):
            raise ConfigError(f"unknown key {unknown[0]!r} in a calibration; known are schema_version, ranges, others")
        if data.get("schema_version") != SCHEMA_VERSION:
            raise ConfigError(
                f"a calibration of schema_version {SCHEMA_VERSION} is expected, got {data.get('schema_version')!r}; "
                f"calibrate again"
            )
        others = {method: _ranges_from_dict(ranges) for method, ranges in data.get("others", {}).items()}
        return cls(ranges=_ranges_from_dict(data.get("ranges", {})), others=others)


def activation_qparams(calibration: Calibration | None, fqn: str, spec: LayerSpec) -> tuple[float, int]:
    """`calibration.qparams`, or a `ConfigError` that says that there is no calibration."""
    if calibration is None:
        raise ConfigError(
            f"{fqn} is to have {spec.activation_bits}-bit activations, which needs a calibration; none was given"
        )
    return calibration.qparams(fqn, spec)


def calibrate(model: nn.Module, batches: Iterable[object], anatomy: Anatomy) -> Calibration:
    """Run `model` on every batch (see `forward`) and choose a range for the input of each layer.

    Streaming: of each layer the extremes of all values are kept, and a sample spread evenly over them, at most
    32768 values. The model is left as it was. Raises `InputError` if there is no batch, or if a layer's input holds
    NaN or infinity.
    """
    watchers = {layer.fqn: _Watcher(layer.fqn) for layer in anatomy.layers if layer.kind != "embedding"}
    n_batches = 0
    handles = []
    try:
        for fqn, watcher in watchers.items():
            handles.append(module_at(model, fqn).register_forward_pre_hook(watcher, with_kwargs=True))
        with preserved(model):
            for inputs in batches:
                forward(model, inputs)
                n_batches += 1
    finally:
        for handle in handles:
            handle.remove()
    if n_batches == 0:
        raise InputError("calibration needs at least one batch, got none; is the calibration split empty?")
    by_method = {
        name: {fqn: watcher.range(name) for fqn, watcher in watchers.items() if watcher.n > 0}
        for name in ACTIVATION.names
    }
    return Calibration(ranges=by_method.pop("affine"), others=by_method)


class _Watcher:
    """A forward pre-hook that remembers the extremes and an even sample of a layer's inputs."""

    def __init__(self, fqn: str) -> None:
        self.fqn = fqn
        self.n = 0
        self.low = 0.0
        self.high = 0.0
        self.stride = 1
        self.sample = torch.empty(0)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs.get("input")
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.numel() == 0:
            return
        x = x.detach().reshape(-1)
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

    def range(self, method: str) -> ActivationRange:
        low, high = ACTIVATION[method](self.sample, self.low, self.high, _BITS)
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
