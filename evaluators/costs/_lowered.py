"""The `Treatment` that a hardware profile lowers, made of a layer and its spec: the two vocabularies meet here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...compressors import FLOAT_BITS
from ...compressors.values import spec_fields
from ...hardware_profiles import Treatment

if TYPE_CHECKING:
    from ...compressors import LayerInfo, LayerSpec
    from ...hardware_profiles import HardwareProfile, Lowered


def lowered_as(layer: LayerInfo, spec: LayerSpec, profile: HardwareProfile) -> Lowered:
    """Kernel that the profile's runtime uses for this layer under `spec`.

    A transposed convolution runs in floating point, because its scales belong to input channels. So does a weight
    inside a recurrent layer or an attention. A rule that names the kind of layer is the exception.
    Zeros without an N:M pattern count as a share alone: no rule about 2:4 fits them, nor blocks, rows and columns.
    A residual runs as one dense product: no runtime here adds two products. Weights that are no plain integers (groups,
    palettes, …) run in floating point, unless the profile has a rule about their format or group.
    """
    treatment = _treatment_of(layer, spec, profile)
    if treatment.rank == spec.rank:
        return profile.lower(treatment)
    return replace(profile.lower(treatment), native=False, note=_RESIDUAL)


def _treatment_of(layer: LayerInfo, spec: LayerSpec, profile: HardwareProfile) -> Treatment:
    weight_bits, activation_bits = spec.kernel_bits
    named = any(layer.kind in (rule.when.kinds or ()) for rule in profile.lowering)
    if (layer.is_transposed or layer.is_fused) and not named:
        weight_bits, activation_bits = FLOAT_BITS, FLOAT_BITS
    known: dict[str, Any] = {f.name: f.lowered(spec.value(f.name)) for f in spec_fields() if f.lowered is not None}
    simulated = spec.changes_activation and activation_bits == FLOAT_BITS  # rounded in operations of their own, in FP32
    asked = Treatment(
        kind=layer.kind,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        rank=1.0 if spec.rank_form == "residual" else spec.rank,
        depthwise=is_depthwise(layer),
        rounded_output=not layer.residual_output or spec.rounds_tensors,
        dynamic=spec.is_dynamic_int8,
        channels=channels_of(layer),
        n_weights=layer.n_weights,
        **known,
    )
    if (named or not layer.is_fused) and not simulated and _has_rule(profile, asked, spec.weight_bits):
        return replace(asked, weight_bits=spec.weight_bits)
    return asked


_RESIDUAL = "the factors and the rest run as the one dense weight that they add up to: bytes are saved, and no time"


def _has_rule(profile: HardwareProfile, asked: Treatment, bits: int) -> bool:
    """Tell whether a rule names this format or this group, or 16 bits where the format has these."""
    rules = [rule.when for rule in profile.lowering]
    if bits == 16:
        return any(16 in (when.weight_bits or ()) for when in rules)
    if asked.weight_format != "int":
        return any(asked.weight_format in (when.weight_formats or ()) for when in rules)
    size = asked.group_size
    return size > 0 and any(when.blocks or size in (when.group_sizes or ()) for when in rules)


def is_depthwise(layer: LayerInfo) -> bool:
    """Tell whether each output channel reads one input channel alone."""
    return layer.groups > 1 and layer.groups == layer.weight_shape[0]


def channels_of(layer: LayerInfo) -> tuple[int, int] | None:
    """(out, in) channels of one group; None for a layer without such axes (an embedding)."""
    if layer.kind == "embedding" or len(layer.weight_shape) < 2:
        return None
    return max(1, layer.weight_shape[0] // layer.groups), layer.weight_shape[1]
