"""The parts of a space and of an assignment that treat layers, and those that remove structure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ...compressors import LayerSpec
from ...compressors.values import StructuralName
from ._space import SearchSpace

if TYPE_CHECKING:
    from ...compressors.structure import Block


def is_structural(name: str) -> bool:
    """Say whether a name of the space belongs to a coupled set or a block, not to a layer."""
    return StructuralName.parse(name) is not None


def layers_of(assignment: Mapping[str, LayerSpec]) -> dict[str, LayerSpec]:
    """Return the part of an assignment that treats layers."""
    return {name: spec for name, spec in assignment.items() if not is_structural(name)}


def structure_of(assignment: Mapping[str, LayerSpec]) -> dict[str, LayerSpec]:
    """Return the part of an assignment that removes something."""
    return {name: spec for name, spec in assignment.items() if is_structural(name) and spec.changes_structure}


def block_name(block: Block) -> str:
    """Return the name of a block in the space."""
    return str(StructuralName("block", block.fqn))


def without_structure(space: SearchSpace) -> SearchSpace:
    """Return the groups of layers alone."""
    return replace(space, groups=tuple(group for group in space.groups if not is_structural(group.name)))
