"""Levels that a layer's statistics do not allow: replaced by the nearest that needs none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...errors import ConfigError, TaskError
from ..values import SearchSpace, is_structural

if TYPE_CHECKING:
    from torch import Tensor

    from ...compressors import Anatomy, Calibration, LayerInfo, LayerSpec
    from ._ranks import Weights

_SHOWN = 4


def narrowed(
    space: SearchSpace, anatomy: Anatomy, calibration: Calibration, weights: Weights
) -> tuple[SearchSpace, list[str]]:
    """Return the space without levels whose statistics are missing, and a note for each reason.

    A layer whose weight is not finite is left alone.

    Such a level becomes the nearest one that needs no statistics: weights alone, by a method that looks at no data. A
    uniform setting then takes that. Raises `TaskError` where nothing is left to decide.
    """
    groups = []
    changed: dict[tuple[str, str], list[str]] = {}
    broken: list[str] = []
    for group in space.groups:
        if not is_structural(group.name) and not all(_is_finite(weights(fqn)) for fqn in group.layers):
            broken += group.layers
            continue
        levels = group.levels
        if not is_structural(group.name):
            layers = [anatomy[fqn] for fqn in group.layers]
            for layer in layers:
                levels, why = _levels_of(levels, layer, calibration)
                if why is not None:
                    changed.setdefault(why, []).append(layer.fqn)
        if any(not spec.is_neutral for spec in levels):
            groups.append(group if levels == group.levels else replace(group, levels=levels))
    notes = [_note(names, *why) for why, names in changed.items()]
    if broken:
        notes.append(f"left alone, because their weights hold NaN or infinity: {', '.join(broken)}; mend the weights")
    if not groups:
        raise TaskError(f"[space] leaves nothing to decide: {'; '.join(notes)}")
    return SearchSpace(groups=tuple(groups)), notes


def describe_without_moments(space: SearchSpace, anatomy: Anatomy, calibration: Calibration) -> list[str]:
    """A line for the layers whose method does better with the moments of their inputs, and has none."""
    from ...compressors import needs_moments, uses_moments

    known = () if calibration.moments is None else calibration.moments.names
    names: list[str] = []
    methods: dict[str, None] = {}
    for group in space.groups:
        asking = [spec for spec in group.levels if uses_moments(spec) and not needs_moments(spec)]
        if not asking:
            continue
        without = [fqn for fqn in group.layers if fqn not in known and anatomy[fqn].kind != "embedding"]
        methods |= dict.fromkeys(spec.weight_method for spec in asking if without)
        names += without
    if not names:
        return []
    why = "transposed, inside an operator, not run on the calibration data, or over a gigabyte with the others"
    line = f"{_shortened(names)}: the moments of their inputs are not known ({why}), "
    return [line + f"so {' and '.join(methods)} goes by the weights alone there"]


def check_statistics(assignment: Mapping[str, LayerSpec], anatomy: Anatomy, calibration: Calibration) -> None:
    """Raise `ConfigError` for the first layer whose spec needs statistics that its calibration data do not give."""
    from ...compressors.variants import lacks, why_missing

    for layer in anatomy.layers:
        spec = assignment.get(layer.fqn)
        if spec is None or (needs := lacks(spec, layer, calibration)) is None:
            continue
        why, remedy = why_missing(layer, calibration)
        raise ConfigError(
            f"layer {layer.fqn} cannot be {spec.label()}: {needs}, and {why}; {remedy}, or compress its weights alone "
            f'(no activation_bits, weight_method "auto" or "affine"), or leave the layer out'
        )


def _levels_of(
    levels: Sequence[LayerSpec], layer: LayerInfo, calibration: Calibration
) -> tuple[tuple[LayerSpec, ...], tuple[str, str] | None]:
    """Levels that a layer can have, and (what is the matter, what to do) where they are not those that were given."""
    from ...compressors import applicable
    from ...compressors.variants import lacks, why_missing, without_statistics

    kept: dict[LayerSpec, None] = {}
    is_narrowed = False
    for spec in levels:
        if lacks(spec, layer, calibration) is not None:
            is_narrowed = True
            spec = without_statistics(spec, layer, calibration)
            if applicable(spec, layer) is not None:
                continue
        kept[spec] = None
    ordered = tuple(sorted(kept, key=lambda spec: not spec.is_neutral))
    return ordered or (type(levels[0])(),), why_missing(layer, calibration) if is_narrowed else None


def _is_finite(weight: Tensor) -> bool:
    return math.isfinite(float(weight.sum())) or bool(weight.isfinite().all())


def _note(names: Sequence[str], why: str, remedy: str) -> str:
    return (
        f"{_shortened(names)}: {why}, so levels that need these statistics become weights alone, by "
        f"methods that look at no data, in uniform settings too; {remedy}"
    )


def _shortened(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
