"""What a layer and its spec are to a hardware profile: the one place where the two vocabularies meet."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ...compressors import FLOAT_BITS, Pattern

if TYPE_CHECKING:
    from ...compressors import LayerInfo, LayerSpec
    from ...hardware_profiles import HardwareProfile, Lowered


def lowered_as(layer: LayerInfo, spec: LayerSpec, profile: HardwareProfile) -> Lowered:
    """What the profile's runtime really runs for this layer, treated so.

    A transposed convolution runs in floating point, unless a rule names its kind: its scales belong to input channels.
    So does a weight inside a recurrent layer or an attention.
    Zeros that follow no N:M pattern are told as a share only: a rule about 2:4 does not fit them, nor blocks, rows and
    columns. A residual runs as one dense product everywhere: no runtime here adds two products up. Weights that are no
    plain integers (groups, palettes, …) run in floating point, unless the profile has a rule about their format or
    group.
    """
    weight_bits, activation_bits = spec.kernel_bits
    named = any(layer.kind in (rule.when.kinds or ()) for rule in profile.lowering)
    if (layer.is_transposed or layer.is_fused) and not named:
        weight_bits, activation_bits = FLOAT_BITS, FLOAT_BITS
    group_size = spec.group_size if isinstance(spec.group_size, int) else 0
    simulated = spec.changes_activation and activation_bits == FLOAT_BITS  # rounded in operations of their own, in FP32
    if _speaks_of(profile, spec, group_size) and (named or not layer.is_fused) and not simulated:
        weight_bits = spec.weight_bits
    residual = spec.rank < 1.0 and spec.rank_form == "residual"
    lowered = profile.lower(
        layer.kind,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        weight_format=spec.weight_format,
        group_size=group_size,
        sparsity=spec.sparsity,
        pattern=spec.pattern if Pattern.parse(spec.pattern).kind == "n:m" else None,
        rank=1.0 if residual else spec.rank,
        depthwise=is_depthwise(layer),
        rounded_output=not layer.residual_output or spec.activation_scope == "tensor",
        dynamic=spec.is_dynamic_int8,
        channels=channels_of(layer),
        n_weights=layer.n_weights,
    )
    return replace(lowered, native=False, note=_RESIDUAL) if residual else lowered


_RESIDUAL = "the factors and the rest run as the one dense weight that they add up to: bytes are saved, and no time"


def _speaks_of(profile: HardwareProfile, spec: LayerSpec, group_size: int) -> bool:
    """Whether one of the rules names this format or this group, or is about 16 bits where the format has these."""
    rules = [rule.when for rule in profile.lowering]
    if spec.weight_bits == 16:
        return any(16 in (when.weight_bits or ()) for when in rules)
    named = any(spec.weight_format in (when.weight_formats or ()) for when in rules if spec.weight_format != "int")
    grouped = group_size > 0 and any(when.blocks or group_size in (when.group_sizes or ()) for when in rules)
    return grouped if spec.weight_format == "int" else named


def is_depthwise(layer: LayerInfo) -> bool:
    """Whether each output channel looks at one input channel alone."""
    return layer.groups > 1 and layer.groups == layer.weight_shape[0]


def channels_of(layer: LayerInfo) -> tuple[int, int] | None:
    """(out, in) channels of one group; None for what has no such axes (an embedding)."""
    if layer.kind == "embedding" or len(layer.weight_shape) < 2:
        return None
    return max(1, layer.weight_shape[0] // layer.groups), layer.weight_shape[1]
