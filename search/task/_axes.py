"""The axes of the space that this process knows: the built-in ones, and those of plugins.

The task's sections, the builder of the space and its checks loop over `axes()`. A new axis is one `Axis`: built in, an
entry of `_built_in_axes.py`; from outside, a call of `register_axis` in a plugin.
"""

from __future__ import annotations

from ...compressors.values import register_field
from ...errors import TaskError
from ._axis import Axis
from ._built_in_axes import BUILT_IN

_REGISTERED: dict[str, Axis] = {}
"""Key -> axis of a plugin."""


def axes() -> tuple[Axis, ...]:
    """Every axis that this process knows, in the order of the keys of [space]."""
    return (*BUILT_IN, *_REGISTERED.values())


def register_axis(axis: Axis) -> None:
    """Make an axis known: a key of [space] whose values reach the methods as `problem.options`.

    A plugin calls this when it is imported. Raises `TaskError` for a key that is taken, and `SpecError` as
    `register_field` does.
    """
    if any(axis.key == other.key for other in axes()):
        raise TaskError(f"there is an axis {axis.key!r} of [space] already; give the new one another key")
    register_field(axis.field)
    _REGISTERED[axis.key] = axis


def registered_axes() -> tuple[Axis, ...]:
    """Axes of plugins."""
    return tuple(_REGISTERED.values())


def main_axes() -> tuple[Axis, ...]:
    """Axes that change a layer by themselves: weight bits, activation bits, sparsity, rank."""
    return tuple(axis for axis in axes() if axis.is_main)


def axes_within(main: Axis) -> tuple[Axis, ...]:
    """Axes that say how the values of a main axis are reached or stored."""
    return tuple(axis for axis in axes() if axis.field.within == main.field.name)


def layer_axes() -> tuple[Axis, ...]:
    """Axes of layers, in contrast to those of coupled sets of channels, heads, …"""
    return tuple(axis for axis in axes() if axis.field.part != "structure")
