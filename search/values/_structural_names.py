"""Placeholder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ...compressors import LayerSpec
from ._space import SearchSpace

if TYPE_CHECKING:
    from ...compressors.structure import Block


def is_structural(name: str) -> bool:
    """Whether a name of the space is of a set or a block; a layer's has no colon."""
    return ":" in name


def layers_of(assignment: Mapping[str, LayerSpec]) -> dict[str, LayerSpec]:
    return {name: spec for name, spec in assignment.items() if not is_structural(name)}


def structure_of(assignment: Mapping[str, LayerSpec]) -> dict[str, LayerSpec]:
    """Only what removes something."""
    return {name: spec for name, spec in assignment.items() if is_structural(name) and spec.changes_structure}


def block_name(block: Block) -> str:
    return f"block:{block.fqn}"


def without_structure(space: SearchSpace) -> SearchSpace:
    return replace(space, groups=tuple(group for group in space.groups if not is_structural(group.name)))
