"""The levels of one layer, made of the axes of a task: every combination of values that can be applied to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import reduce
from itertools import product
from typing import TYPE_CHECKING, Any

from ...compressors import FLOAT_BITS, FORMAT_BITS, LayerInfo, LayerSpec, Pattern, formats
from ...compressors.values import spec_fields
from ..task import axes_within, layer_axes, main_axes, registered_axes
from ._ranks import by_form

if TYPE_CHECKING:
    from ..task import Axis, SpaceSection
    from ._ranks import Weights

Chosen = Mapping[str, Sequence[Any]]
"""Key of [space] -> values that the task offers for one layer."""

_NEUTRAL = LayerSpec()


def levels_of(layer: LayerInfo, section: SpaceSection, weights: Weights | None = None) -> list[LayerSpec]:
    """Every combination that can be applied to this layer; the neutral spec alone where none can.

    An axis stays neutral where none of its values fits the layer. Where the pattern of a combination does not fit, the
    layer stays dense in it. Raises `TaskError` for ranks by energy without `weights`.
    """
    globs = [glob for glob in section.overrides if fnmatchcase(layer.fqn, glob)]
    chosen: dict[str, Sequence[Any]] = {axis.key: section.values_for(axis, globs) for axis in layer_axes()}
    chosen |= {axis.key: _fitting_values(axis, chosen[axis.key], layer) for axis in registered_axes()}
    fit: dict[LayerSpec, None] = {}
    for of_form in by_form(layer, chosen, weights):
        fit |= dict.fromkeys(_combinations(layer, of_form))
    return list(fit) or [_NEUTRAL]


def alone(axis: Axis, value: Any, chosen: Chosen) -> list[LayerSpec]:
    """The specs that have this value of a main axis and nothing else: one for each form that it can have.

    A residual form is left out, because it needs the bits or zeros of its rest.
    """
    name = axis.field.name
    if value == axis.field.neutral:
        return [_NEUTRAL]
    if name == "rank":
        plain = [LayerSpec(rank=value, rank_form=form) for form in chosen["rank_form"] if form != "residual"]
        return plain or [_NEUTRAL]
    if name == "sparsity":
        patterns = [pattern for pattern in chosen["sparsity_pattern"] if agrees(value, pattern)]
        return [LayerSpec(sparsity=value, pattern=pattern) for pattern in patterns]
    if name == "weight_bits":
        return [LayerSpec(weight_bits=value, weight_format=formats(value)[0])]
    return [LayerSpec.from_dict({name: value})]


def agrees(sparsity: float, pattern: str) -> bool:
    """Tell whether the pattern allows this share of zeros; N:M allows a single one."""
    share = Pattern.parse(pattern).share
    return share is None or abs(share - sparsity) < 1e-3


def main_fields() -> tuple[str, ...]:
    """Fields of `LayerSpec` that are main axes."""
    return tuple(axis.field.name for axis in main_axes())


def inner_fields() -> tuple[str, ...]:
    """Fields of `LayerSpec` that say how the values of the main axes are reached or stored."""
    return tuple(axis.field.name for main in main_axes() for axis in axes_within(main))


def dearest_first(spec: LayerSpec) -> tuple[Any, ...]:
    """Key that orders specs by about the bytes that they store; then FP32 activations and built-in methods come first.

    The order is total, so that it never varies.
    """
    density = spec.weight_bits * (1.0 - spec.sparsity) * spec.rank * spec.keep
    names = (*inner_fields(), "keep_method")
    values = [spec.value(name) for name in names]
    own = [value != _NEUTRAL.value(name) for name, value in zip(names, values, strict=True)]
    return (
        -density, -spec.activation_bits, -spec.weight_bits, spec.sparsity, -spec.rank, *own, *map(str, values)
    )  # fmt: skip


def _fitting_values(axis: Axis, values: Sequence[Any], layer: LayerInfo) -> Sequence[Any]:
    """Values of a plugin's axis that fit the layer; the neutral one where none does."""
    misfit = axis.field.misfit
    if misfit is None:
        return values
    return [value for value in values if misfit(value, layer.kind, layer.weight_shape) is None] or [axis.field.neutral]


def _combinations(layer: LayerInfo, chosen: Chosen) -> Iterator[LayerSpec]:
    from ...compressors import applicable

    fitting = {}
    for axis in main_axes():
        usable = [
            value
            for value in chosen[axis.key]
            if any(applicable(spec, layer) is None for spec in alone(axis, value, chosen))
        ]
        fitting[axis.field.name] = usable or [axis.field.neutral]
    for values in product(*fitting.values()):
        for spec in _in_each_way(dict(zip(fitting, values, strict=True)), chosen):
            yield from [mild for mild in _milder(spec) if applicable(mild, layer) is None][:1]


def _in_each_way(values: Mapping[str, Any], chosen: Chosen) -> Iterable[LayerSpec]:
    """These values of the main axes by every combination of the axes within those that are active.

    Combinations that do not exist (a width that the format lacks, a share that N:M does not have) are left out.
    """
    active = [a for main in main_axes() if values[main.field.name] != main.field.neutral for a in axes_within(main)]
    for picked in product(*(chosen[axis.key] for axis in active)):
        level = {**values, **{axis.field.name: value for axis, value in zip(active, picked, strict=True)}}
        bits = level["weight_bits"]
        if bits != FLOAT_BITS and bits not in FORMAT_BITS[level["weight_format"]]:
            continue
        if not agrees(level["sparsity"], level.get("pattern", "")):
            continue
        idle = [axis for axis in active if axis.idle is not None and axis.idle(level)]
        level |= {a.field.name: chosen[a.key][0] if a.when_idle == "first" else a.field.neutral for a in idle}
        yield LayerSpec.from_dict(level)


def _milder(spec: LayerSpec) -> Iterator[LayerSpec]:
    """The spec, then specs for a layer that it does not fit: without one choice, then without all of them.

    A group that is no shorter than the row becomes the row, a pattern that does not fit leaves the layer dense, and a
    scope without effect becomes the layer's.
    """
    yield spec
    given_up = [field for field in spec_fields() if field.fallback and spec.value(field.name) != field.neutral]
    for field in given_up:
        yield spec.without(field.fallback)
    yield reduce(LayerSpec.without, [field.name for field in given_up if field.fallback == field.name], spec)
