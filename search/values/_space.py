"""The search space: groups of layers, each with an ordered list of levels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ...compressors import LayerSpec
from ...errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Layers that share one decision, and the levels that they may have.

    levels  ordered from the dearest (level 0: left alone, where the space allows it) to the cheapest in stored bytes
    """

    name: str
    layers: tuple[str, ...]
    levels: tuple[LayerSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """The decision groups, in the order in which the model runs them."""

    groups: tuple[Group, ...]

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def n_levels(self) -> tuple[int, ...]:
        """Number of levels of each group."""
        return tuple(len(group.levels) for group in self.groups)

    @property
    def size(self) -> int:
        """Number of candidates."""
        return prod(self.n_levels)

    def assignment(self, candidate: Candidate) -> dict[str, LayerSpec]:
        """Return fqn -> spec for every layer. Raises `ConfigError` if the candidate is not of this space."""
        self.check(candidate)
        return {
            fqn: group.levels[level]
            for group, level in zip(self.groups, candidate.levels, strict=True)
            for fqn in group.layers
        }

    def check(self, candidate: Candidate) -> None:
        """Raise `ConfigError` if the candidate is not of this space."""
        if len(candidate.levels) != len(self.groups):
            raise ConfigError(
                f"a candidate of this space has {len(self.groups)} levels, one a group; got {len(candidate.levels)}"
            )
        for group, level in zip(self.groups, candidate.levels, strict=True):
            if not 0 <= level < len(group.levels):
                raise ConfigError(f"level of {group.name} must be in 0..{len(group.levels) - 1}, got {level}")

    def candidate_of(self, assignment: Mapping[str, LayerSpec]) -> Candidate | None:
        """Return the candidate that gives every layer this spec, or None if the space has no such level."""
        levels = []
        for group in self.groups:
            specs = {assignment.get(fqn, LayerSpec()) for fqn in group.layers}
            if len(specs) != 1 or (spec := specs.pop()) not in group.levels:
                return None
            levels.append(group.levels.index(spec))
        return Candidate(levels=tuple(levels))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A level for each group of a `SearchSpace`, by index.

    Two candidates with equal levels are the same candidate.
    """

    levels: tuple[int, ...]

    def __iter__(self) -> Iterator[int]:
        return iter(self.levels)


def space_to_dict(space: SearchSpace) -> list[dict[str, Any]]:
    """Return the space as JSON builtins, one dict a group."""
    return [
        {"name": g.name, "layers": list(g.layers), "levels": [spec.to_dict() for spec in g.levels]}
        for g in space.groups
    ]


def space_from_dict(data: Sequence[Mapping[str, Any]], version: int) -> SearchSpace:
    """Return the space of `space_to_dict`.

    version  the `SPEC_VERSION` that it was written with
    """
    return SearchSpace(
        groups=tuple(
            Group(
                name=g["name"],
                layers=tuple(g["layers"]),
                levels=tuple(LayerSpec.from_dict(s, version=version) for s in g["levels"]),
            )
            for g in data
        )
    )
