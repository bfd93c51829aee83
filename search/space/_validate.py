"""Checks of [space] against a model: a `TaskError` for anything that was asked for and cannot have an effect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ...compressors import FLOAT_BITS, FORMAT_BITS, Anatomy, LayerInfo, LayerSpec, Pattern
from ...errors import TaskError
from ..task import axes_within, main_axes, nearest
from ._levels import agrees, alone

if TYPE_CHECKING:
    from ..task import AxesSection, Axis, SpaceSection, Task


def check_section(section: SpaceSection, anatomy: Anatomy) -> None:
    """Refuse globs that match no layer, methods that are not registered, and axes that fit no layer."""
    _check_globs(section, anatomy)
    _check_methods(section)
    _check_axes(section, anatomy)
    _check_products(section, anatomy)


def check_sums(layers: Sequence[LayerInfo], levels: Sequence[LayerSpec], runtime: str) -> None:
    """Refuse, before anything is searched, levels that OpenVINO cannot export."""
    summed = next((layer for layer in layers if layer.residual_output), None)
    if runtime == "openvino" and summed and any(spec.rounds_tensors for spec in levels):
        raise TaskError(
            f"space.activation_scope: 'tensor' rounds what {summed.fqn} gives to a sum, and OpenVINO drops that "
            "rounding where it fuses the sum; take 'layer', or leave the key out: it is as fast there"
        )


def _check_globs(section: SpaceSection, anatomy: Anatomy) -> None:
    known = (*anatomy.fqns, *anatomy.unused)
    named = [("space.leave", glob) for glob in section.leave] + [
        ("space.overrides", glob) for glob in section.overrides
    ]
    for where, glob in named:
        if not any(fnmatchcase(fqn, glob) for fqn in known):
            inside = [fqn for fqn in known if fqn.startswith(f"{glob}.")]
            hint = (
                f"; did you mean {glob + '.*'!r}?"
                if inside
                else nearest(glob, known[:8])
                if len(known) <= 8
                else _nearest_of_many(glob, known)
            )
            raise TaskError(f"{where}: {glob!r} matches no layer that can be compressed{hint}")


def _nearest_of_many(glob: str, known: Sequence[str]) -> str:
    found = nearest(glob, tuple(known))
    return found if "did you mean" in found else f"; the layers are {', '.join(known[:6])}, … ({len(known)} in all)"


def _check_axes(section: SpaceSection, anatomy: Anatomy) -> None:
    """Refuse an axis that was asked for and fits no layer. The default values may fit none: nobody asked for them."""
    from ...compressors import applicable

    for axis in main_axes():
        values = section.values(axis)
        if values == axis.default:
            continue
        chosen = {inner.key: section.values(inner) for main in main_axes() for inner in axes_within(main)}
        changing = [spec for value in values for spec in alone(axis, value, chosen) if not spec.is_neutral]
        reasons = [applicable(spec, layer) for spec in changing for layer in anatomy.layers]
        if reasons and all(reason is not None for reason in reasons):
            raise TaskError(
                f"space.{axis.key} = {list(values)} fits no layer of this model: {anatomy.layers[0].fqn}: "
                f"{reasons[0]}; leave {axis.key} out"
            )


def _check_products(section: SpaceSection, anatomy: Anatomy) -> None:
    """Refuse the scope "product" for a model without products of attention."""
    scopes = {"space": section.activation_scope}
    scopes |= {f'space.overrides."{glob}"': over.activation_scope or () for glob, over in section.overrides.items()}
    for where, found in scopes.items():
        if "product" in found and not any(layer.product for layer in anatomy.layers):
            raise TaskError(
                f"{where}.activation_scope: 'product' fits no layer of this model: it is for linear layers whose "
                "output goes straight into a product of attention that has no mask and no order in time, outside of "
                "nn.MultiheadAttention; leave it out"
            )


def _check_methods(section: SpaceSection) -> None:
    """Refuse a method that is not registered, or that has nothing to do."""
    tables = [("space", section), *((f'space.overrides."{glob}"', over) for glob, over in section.overrides.items())]
    for axis in main_axes():
        how = next(inner for inner in axes_within(axis) if inner.key.endswith("_method"))
        values = section.values_anywhere(axis)
        for where, table in tables:
            _check_names(where, table.values_of(how) or (), axis, how, any(v != axis.field.neutral for v in values))
    for where, table in tables:
        _check_stored(where, table, section)
        _check_patterns(where, table, section)


def _check_names(where: str, names: Sequence[str], axis: Axis, how: Axis, active: bool) -> None:
    from ...compressors import is_method, methods

    kind = how.key.removesuffix("_method")
    if unknown := [name for name in names if not is_method(kind, name)]:
        raise TaskError(
            f"{where}.{how.key}: there is no {how.key.replace('_', ' ')} {unknown[0]!r}; known are "
            f"{', '.join(methods(kind))}. One of your own is registered by a file that the task names in plugins"
        )
    if not active and any(name not in (how.field.neutral, *how.default) for name in names):
        raise TaskError(
            f"{where}.{how.key} = {list(names)} has nothing to do: no value of space.{axis.key} changes a layer; "
            f"add some, or leave {how.key} out"
        )


def _check_stored(where: str, table: AxesSection, section: SpaceSection) -> None:
    """Refuse a format that has none of the widths, and a width that no format has."""
    chosen = {
        key: getattr(table, key) or getattr(section, key) for key in ("weight_bits", "weight_format", "weight_method")
    }
    widths = [bits for bits in chosen["weight_bits"] if bits != FLOAT_BITS]
    for name in chosen["weight_format"]:
        if widths and not set(widths) & set(FORMAT_BITS[name]):
            raise TaskError(
                f"{where}.weight_format: {name!r} has {', '.join(map(str, FORMAT_BITS[name]))} bits, and weight_bits "
                f"offers {', '.join(map(str, widths))}; add one of the former, or leave {name!r} out"
            )
    for bits in widths:
        if not any(bits in FORMAT_BITS[name] for name in chosen["weight_format"]):
            having = ", ".join(name for name, known in FORMAT_BITS.items() if bits in known)
            raise TaskError(
                f"{where}.weight_bits: none of the formats {', '.join(chosen['weight_format'])} has {bits} bits; add "
                f"one of {having} to weight_format, or leave {bits} out"
            )


def _check_patterns(where: str, table: AxesSection, section: SpaceSection) -> None:
    """Refuse a pattern whose share is not offered, and a share that no pattern allows."""
    chosen = {key: getattr(table, key) or getattr(section, key) for key in ("sparsity", "sparsity_pattern")}
    shares = [share for share in chosen["sparsity"] if share != 0.0]
    if not shares and any(chosen["sparsity_pattern"]):
        raise TaskError(
            f"{where}.sparsity_pattern = {list(chosen['sparsity_pattern'])} has nothing to do: no value of "
            f"space.sparsity changes a layer; add some, or leave sparsity_pattern out"
        )
    for pattern in chosen["sparsity_pattern"]:
        if shares and not any(agrees(share, pattern) for share in shares):
            raise TaskError(
                f"{where}.sparsity_pattern: {pattern!r} means a sparsity of {Pattern.parse(pattern).share:.4g}, and "
                f"sparsity offers {', '.join(f'{share:g}' for share in shares)}; add it, or leave {pattern!r} out"
            )
    for share in shares:
        if not any(agrees(share, pattern) for pattern in chosen["sparsity_pattern"]):
            raise TaskError(
                f"{where}.sparsity: none of the patterns {', '.join(chosen['sparsity_pattern'])} has a share of "
                f"{share:g}; add '' (zeros anywhere) to sparsity_pattern, or leave {share:g} out"
            )


def refuse_with_structure(task: Task, costs: Iterable[str]) -> None:
    """Refuse settings that do not work with removed units yet."""
    if task.hardware.latency == "measured" or task.hardware.latency_table is not None:
        raise TaskError(
            "hardware.latency: a table of measured latencies knows the layers as they are, not with fewer channels; "
            'set latency = "modelled", or leave channels, heads, neurons, … out of [space]'
        )
    if task.repair.block_reconstruction:
        raise TaskError(
            "repair.block_reconstruction: a block with fewer channels has no output of the original's to be held "
            "against; leave it out, or leave channels, heads, neurons, … out of [space]"
        )
    memory = [name for name in costs if name in ("peak_activation_bytes", "memory_bytes")]
    if memory:
        raise TaskError(
            f"{memory[0]} cannot be foreseen for a model with fewer channels yet; leave it out of [objectives] and "
            f"[limits], or leave channels, heads, neurons, … out of [space]"
        )
