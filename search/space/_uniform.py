"""Uniform settings: the same treatment of every layer, which a mixed point of the search has to beat."""

from __future__ import annotations

from ...compressors import FLOAT_BITS, LayerSpec
from ..values import Candidate, Group, SearchSpace
from ._levels import dearest_first, inner_fields, main_fields

_MAX_UNIFORM = 24


def uniform_settings(space: SearchSpace) -> list[tuple[str, Candidate]]:
    """(label, candidate) for each treatment of the space, applied everywhere, from the dearest to the cheapest.

    Two methods are two treatments. A group without that level takes its nearest dearer one: the cheapest of its levels
    that are no stronger on any axis, by the same methods if possible. The all-neutral candidate (the original) and
    repetitions are left out. Where there are more than 24 treatments, only those of weights and activations are taken,
    and those that change one axis alone.
    """
    offered = {spec for group in space.groups for spec in group.levels if not spec.is_neutral and spec.keep > 0.0}
    if len(offered) > _MAX_UNIFORM:
        offered = {spec for spec in offered if _is_plain(spec)}
    settings: dict[Candidate, str] = {}
    for spec in sorted(offered, key=dearest_first):
        candidate = Candidate(levels=tuple(_nearest_level(group, spec) for group in space.groups))
        if any(not group.levels[level].is_neutral for group, level in zip(space.groups, candidate, strict=True)):
            settings.setdefault(candidate, _label(spec, offered))
    return [(label, candidate) for candidate, label in settings.items()]


def _label(spec: LayerSpec, offered: set[LayerSpec]) -> str:
    """Label of a setting; the method is named too where another setting differs in nothing else that a label says."""
    is_alone = sum(other.label() == spec.label() for other in offered) == 1
    return spec.label() if is_alone else f"{spec.label()} by {spec.weight_method}"


def _nearest_level(group: Group, spec: LayerSpec) -> int:
    if spec in group.levels:
        return group.levels.index(spec)
    milder = [
        index
        for index, level in enumerate(group.levels)
        if level.weight_bits >= spec.weight_bits
        and level.activation_bits >= spec.activation_bits
        and level.sparsity <= spec.sparsity
        and level.rank >= spec.rank
        and level.keep >= spec.keep
    ]
    cheapest = max(milder, default=0)
    # levels are sorted by cost: those that differ from it in their methods only stand for the same treatment
    alike = [index for index in milder if _values(group.levels[index]) == _values(group.levels[cheapest])]
    return max(alike, key=lambda index: (_n_methods_shared(group.levels[index], spec), index), default=cheapest)


def _values(spec: LayerSpec) -> tuple[float, ...]:
    return (*(spec.value(name) for name in main_fields()), spec.keep)


def _n_methods_shared(one: LayerSpec, other: LayerSpec) -> int:
    return sum(one.value(name) == other.value(name) for name in inner_fields())


def _is_plain(spec: LayerSpec) -> bool:
    changed = [
        spec.weight_bits != FLOAT_BITS,
        spec.changes_activation,
        spec.sparsity > 0.0,
        spec.rank < 1.0,
        spec.keep < 1.0,
    ]
    return sum(changed) == 1 or (spec.sparsity == 0.0 and spec.rank == 1.0)
