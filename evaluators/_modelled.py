"""Latency from a device's profile, where the device is not here. An estimate, and marked as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from ._costs import factor_macs, specs_of
from ._measurement import Measurement

if TYPE_CHECKING:
    from ..compressors import Anatomy, LayerInfo, LayerSpec
    from ..hardware_profiles import HardwareProfile, Lowered


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelledLatency:
    """layers: milliseconds of each layer by fqn; lowered: what each runs as; profile: its name."""

    profile: str
    layers: Mapping[str, float]
    lowered: Mapping[str, Lowered]

    @property
    def total_ms(self) -> float:
        return sum(self.layers.values())

    def measurement(self) -> Measurement:
        """The sum in milliseconds, `source` "modelled"; it has no interval, for its error is not known."""
        return Measurement(value=self.total_ms, unit="ms", source="modelled")


def modelled_latency_ms(
    anatomy: Anatomy, assignment: Mapping[str, LayerSpec] | None, profile: HardwareProfile
) -> ModelledLatency:
    """One sample's latency by the roofline (Williams et al. 2009).

    Each layer takes the longer of its arithmetic and its traffic, and an overhead for each kernel.

    Every layer is costed as what the runtime *really runs* (`profile.lower`): 3-bit weights that run as INT8 cost what
    INT8 costs, and a weight-only format that runs as FP32 saves nothing. What is not a compressible layer (norms,
    activations, attention's products) is left out, so read differences rather than totals.
    Raises `ConfigError` where `assignment` names a layer that the model has not.
    """
    specs = specs_of(anatomy, assignment)
    lowered = {
        layer.fqn: profile.lower(
            layer.kind,
            weight_bits=specs[layer.fqn].kernel_bits[0],
            activation_bits=specs[layer.fqn].kernel_bits[1],
            sparsity=specs[layer.fqn].sparsity,
            rank=specs[layer.fqn].rank,
        )
        for layer in anatomy.layers
    }
    layers = {layer.fqn: _layer_ms(layer, specs[layer.fqn], lowered[layer.fqn], profile) for layer in anatomy.layers}
    return ModelledLatency(profile=profile.name, layers=layers, lowered=lowered)


def _layer_ms(layer: LayerInfo, spec: LayerSpec, lowered: Lowered, profile: HardwareProfile) -> float:
    products = factor_macs(layer, spec.rank if lowered.low_rank else 1.0)
    n_macs = sum(products) * ((1.0 - spec.sparsity) if lowered.sparse else 1.0)
    compute_ms = n_macs / profile.rates_gmac_s[lowered.rate].value * 1e-6
    traffic_ms = _traffic_bytes(layer, lowered, products) / profile.bandwidth_gb_s.value * 1e-6
    overhead_ms = profile.layer_overhead_us.value * 1e-3 * len(products) * layer.n_calls
    return max(compute_ms, traffic_ms) + overhead_ms


def _traffic_bytes(layer: LayerInfo, lowered: Lowered, products: tuple[int, ...]) -> float:
    """Weights and activations once each, in the widths that run. Of an embedding only the rows that are looked up."""
    out_bytes = prod(layer.output_shape) * layer.n_calls * 4  # what is handed on is counted in FP32
    if layer.kind == "embedding":
        return 2.0 * out_bytes
    in_bytes = prod(layer.input_shape) * layer.n_calls * lowered.activation_bits / 8
    weights = layer.n_weights if layer.macs == 0 else layer.n_weights * sum(products) / layer.macs
    return weights * lowered.weight_bits / 8 * layer.n_calls + in_bytes + out_bytes
