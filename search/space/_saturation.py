"""Weights of 7 bits where the integer kernels of a device overflow with 8.

A trial is evaluated in PyTorch, which saturates nowhere. So that an artifact gives what its trial gave, the space does
without what those kernels cannot add up (`HardwareProfile.saturates`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...compressors import LayerInfo, LayerSpec
    from ...hardware_profiles import HardwareProfile
    from ..task import Task
    from ..values import SearchSpace

WIDE, SAFE = 8, 7


def without_saturation(
    layers: Sequence[LayerInfo], spec: LayerSpec, saturating: Sequence[HardwareProfile]
) -> LayerSpec:
    """The spec, or with 7 bits for 8 where one of these layers would run it in integers on one of these profiles."""
    if spec.weight_bits != WIDE or not any(_in_integers(layer, spec, p) for layer in layers for p in saturating):
        return spec
    return replace(spec, weight_bits=SAFE)


def describe_saturation(task: Task, space: SearchSpace, profiles: Sequence[HardwareProfile]) -> list[str]:
    """A line where weights of 8 bits were asked for, and became 7."""
    names = [profile.name for profile in profiles if profile.saturates]
    asked = {*task.space.weight_bits, *(b for over in task.space.overrides.values() for b in over.weight_bits or ())}
    has = any(spec.weight_bits == SAFE and spec.kernel_bits[1] == 8 for group in space.groups for spec in group.levels)
    if not names or WIDE not in asked or not has:
        return []
    line = (
        f"weights have 7 bits for 8 where what they are multiplied with is rounded: without VNNI ({', '.join(names)}) "
        "integer kernels add pairs of products in 16 bits, which 8 bits overflow"
    )
    return [line]


def _in_integers(layer: LayerInfo, spec: LayerSpec, profile: HardwareProfile) -> bool:
    from ...evaluators import lowered_as

    return lowered_as(layer, spec, profile).activation_bits < 16
