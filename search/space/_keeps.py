"""Shares of coupled sets that [space] lets stay: its axes `channels`, `heads`, …"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ..task import axes

if TYPE_CHECKING:
    from ...compressors.structure import CoupledSet
    from ..task import Axis, SpaceSection

_KINDS = {"width": "hidden"}
"""Key of [space] -> kind of coupled set, where the names differ."""


def keep_axes() -> dict[str, Axis]:
    """Kind of coupled set -> axis that offers shares of it."""
    return {_KINDS.get(axis.key, axis.key): axis for axis in axes() if axis.field.name == "keep"}


def removes_something(section: SpaceSection) -> bool:
    """Tell whether [space] offers to remove units or blocks."""
    return bool(asked_kinds(section)) or section.blocks


def asked_kinds(section: SpaceSection) -> tuple[str, ...]:
    """Kinds of coupled sets of which some share below 1 is offered anywhere."""
    return tuple(kind for kind, axis in keep_axes().items() if asked_shares(section, axis))


def asked_shares(section: SpaceSection, axis: Axis) -> tuple[float, ...]:
    """Shares below 1 that [space] or an override offers."""
    return tuple(share for share in section.values_anywhere(axis) if share < 1.0)


def shares_of(section: SpaceSection, coupled: CoupledSet) -> tuple[float, ...]:
    """Shares offered for one set; an override applies where its glob matches a layer that makes the units."""
    makers = [member.tensor.rpartition(".")[0] for member in coupled.members if member.role != "reads"]
    globs = [glob for glob in section.overrides if any(fnmatchcase(fqn, glob) for fqn in makers)]
    return section.values_for(keep_axes()[coupled.kind], globs)
