"""Structure that a task may remove from a model: coupled sets of channels, heads, … and residual blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ...compressors import Anatomy, LayerSpec
from ...errors import ConfigError
from ..values import block_name, is_structural, structure_of

if TYPE_CHECKING:
    from torch import nn

    from ...compressors.structure import Block, CoupledSet, Removal


@dataclass(frozen=True, slots=True, kw_only=True)
class Structured:
    """Coupled sets and blocks of a model, and the ranking of their units.

    sets, blocks  structure that this task may remove
    rankings      name of a set -> score -> its units, the most important first
    left          name -> reason why the structure is left alone
    round_to      name of a set -> number that the channels that stay are a multiple of
    thresholds    score -> share of all units that stays -> name of a set -> share of the set that stays: one threshold
                  for all sets, which a point of the search has to beat as well
    """

    sets: tuple[CoupledSet, ...] = ()
    blocks: tuple[Block, ...] = ()
    rankings: Mapping[str, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)
    round_to: Mapping[str, int] = field(default_factory=dict)
    thresholds: Mapping[str, Mapping[float, Mapping[str, float]]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return (*(coupled.name for coupled in self.sets), *(block_name(block) for block in self.blocks))

    def check(self, assignment: Mapping[str, LayerSpec]) -> None:
        """Raise `ConfigError` for a set or a block that this task does not know, or that cannot be cut so."""
        known = set(self.names)
        for name, spec in assignment.items():
            if not is_structural(name):
                continue
            if name not in known:
                why = f": {self.left[name]}" if name in self.left else ""
                raise ConfigError(
                    f"the config removes units of {name}, which this task does not know{why}; known are "
                    f"{', '.join(self.names[:6]) or 'none: name shares in [space] channels, heads, neurons, …'}"
                )
            if replace(spec, keep=1.0, keep_method=LayerSpec().keep_method) != LayerSpec():
                raise ConfigError(f"{name} can keep a share of its units and nothing else, got {spec.label()!r}")

    def removal(self, model: nn.Module, assignment: Mapping[str, LayerSpec]) -> Removal | None:
        """Removal of the units that the assignment drops from this model; None where it drops none."""
        from ...compressors.structure import removal_of

        chosen = structure_of(assignment)
        if not chosen:
            return None
        self.check(chosen)
        sets = {coupled.name: coupled for coupled in self.sets}
        kept = {name: self.kept(sets[name], spec) for name, spec in chosen.items() if name in sets}
        skipped: dict[str, int] = {}
        for block in self.blocks:
            if block_name(block) in chosen:
                skipped |= block.skipped
        return removal_of(model, self.sets, kept, skipped)

    def kept(self, coupled: CoupledSet, spec: LayerSpec) -> tuple[int, ...]:
        """Units of the set that stay, the most important first. Raises `ConfigError` for a score without a ranking."""
        from ...compressors.structure import n_kept

        ranking = self.rankings[coupled.name].get(spec.keep_method)
        if ranking is None:
            raise ConfigError(
                f"{coupled.name} was not ranked by {spec.keep_method!r}; add it to [space] keep_method (there are "
                f"{', '.join(self.rankings[coupled.name])})"
            )
        return ranking[: n_kept(coupled, spec.keep, round_to=self.round_to.get(coupled.name, 1))]


def removed_anatomy(anatomy: Anatomy, removal: Removal | None) -> Anatomy:
    """Anatomy of what is left after the removal; the same anatomy for None."""
    if removal is None:
        return anatomy
    from ...compressors.structure import shrunk

    return shrunk(anatomy, removal)
