"""Memory of a model while it runs: weights in their running width, which is seldom the stored one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..costs import lowered_as, specs_of
from ._liveness import ActivationGraph, Peak, peak_activations

if TYPE_CHECKING:
    from ...compressors import Anatomy, LayerInfo, LayerSpec
    from ...hardware_profiles import HardwareProfile

_FLOAT_BYTES = 4


def running_weight_bytes(
    anatomy: Anatomy, assignment: Mapping[str, LayerSpec] | None, profile: HardwareProfile
) -> dict[str, float]:
    """fqn -> bytes of its weight in the runtime's memory. 3-bit weights that run as INT8 take a byte each.

    The first of the layers that share a tensor counts it. Zeros are counted like other values.
    """
    specs = specs_of(anatomy, assignment)
    found: dict[str, float] = {}
    for layer in anatomy.layers:
        lowered = lowered_as(layer, specs[layer.fqn], profile)
        shared = any(other in found for other in layer.tied_to)
        n = _n_stored(layer, specs[layer.fqn]) if lowered.low_rank else layer.n_weights
        found[layer.fqn] = 0.0 if shared else n * lowered.weight_bits / 8
    return found


def _n_stored(layer: LayerInfo, spec: LayerSpec) -> int:
    from ...compressors.lowrank import part_shapes  # that package needs torch

    return sum(rows * columns for rows, columns in part_shapes(spec.rank_form, spec.rank, layer.weight_shape).values())


def activation_peak(
    anatomy: Anatomy,
    assignment: Mapping[str, LayerSpec] | None,
    profile: HardwareProfile,
    graph: ActivationGraph,
    *,
    batch: int = 1,
) -> Peak:
    """Peak of activations in the widths that this runtime really runs."""
    specs = specs_of(anatomy, assignment)
    bits = {layer.fqn: lowered_as(layer, specs[layer.fqn], profile).activation_bits for layer in anatomy.layers}
    return peak_activations(graph, lambda fqn: bits.get(fqn, 32), batch=batch)


def other_weight_bytes(anatomy: Anatomy) -> float:
    """Bytes of biases, norms and all other parameters, which stay in FP32."""
    counted: set[str] = set()
    n = 0
    for layer in anatomy.layers:
        if not counted & set(layer.tied_to):
            n += layer.n_weights
        counted.add(layer.fqn)
    return float(max(0, anatomy.n_params - n) * _FLOAT_BYTES)


def memory_bytes(
    anatomy: Anatomy,
    assignment: Mapping[str, LayerSpec] | None,
    profile: HardwareProfile,
    graph: ActivationGraph,
    *,
    batch: int = 1,
) -> float:
    """Main memory for one running model: weights and the activations' peak.

    On a device that has storage of its own (`storage_bytes`: the flash of a microcontroller) weights stay there, and
    only the activations count.
    """
    peak = activation_peak(anatomy, assignment, profile, graph, batch=batch).bytes
    if profile.storage_bytes is not None:
        return float(peak)
    weights = sum(running_weight_bytes(anatomy, assignment, profile).values())
    return weights + other_weight_bytes(anatomy) + peak
