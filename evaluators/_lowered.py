"""What a layer and its spec are to a hardware profile: the one place where the two vocabularies meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..compressors import LayerInfo, LayerSpec
    from ..hardware_profiles import HardwareProfile, Lowered

_BUILT_IN = "affine"
"""The method whose codes are integers on an even grid; of another, its name is all that is known of its format."""


def lowered_as(layer: LayerInfo, spec: LayerSpec, profile: HardwareProfile) -> Lowered:
    """What the profile's runtime really runs for this layer, treated so.

    Zeros that follow no pattern are told as a share only: a rule about 2:4 does not fit them.
    """
    return profile.lower(
        layer.kind,
        weight_bits=spec.weight_bits,
        activation_bits=spec.activation_bits,
        weight_format="int" if spec.weight_method == _BUILT_IN else spec.weight_method,
        sparsity=spec.sparsity,
        rank=spec.rank,
        depthwise=is_depthwise(layer),
        channels=channels_of(layer),
    )


def is_depthwise(layer: LayerInfo) -> bool:
    """Whether each output channel looks at one input channel alone."""
    return layer.groups > 1 and layer.groups == layer.weight_shape[0]


def channels_of(layer: LayerInfo) -> tuple[int, int] | None:
    """(out, in) channels of one group; None for what has no such axes (an embedding)."""
    if layer.kind == "embedding" or len(layer.weight_shape) < 2:
        return None
    return max(1, layer.weight_shape[0] // layer.groups), layer.weight_shape[1]
