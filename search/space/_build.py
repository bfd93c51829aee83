"""From a task and a model's layers to what may be decided; and the uniform settings that a mixed point must beat."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import product
from math import ceil
from typing import TYPE_CHECKING, Any

from ...compressors import FLOAT_BITS, FORMAT_BITS, Anatomy, LayerInfo, LayerSpec, Pattern, formats
from ...errors import TaskError
from ..task import nearest
from ..values import MODELLED, Candidate, Group, SearchSpace
from ._saturation import without_saturation
from ._structure import structural_groups

if TYPE_CHECKING:
    from torch import Tensor

    from ...hardware_profiles import HardwareProfile
    from ..task import Section, SpaceSection, Task
    from ._structure import Structured

Costs = Callable[[str, LayerSpec], int]
"""(fqn, spec) -> stored bytes of that layer."""

Weights = Callable[[str], "Tensor"]
"""fqn -> that layer's weight."""

AXES = ("weight_bits", "activation_bits", "sparsity", "rank")
METHODS = {axis: f"{axis.removesuffix('_bits')}_method" for axis in AXES}
"""Axis -> the key that names how its values are reached."""
STORED = {
    "weight_bits": ("weight_format", "group_size", "scale_bits"),
    "activation_bits": ("activation_scheme", "activation_scope"),
    "sparsity": ("sparsity_pattern",),
    "rank": ("rank_form",),
}
"""Axis -> further keys that say how its values are stored or found."""
KEYS = {axis: (METHODS[axis], *STORED.get(axis, ())) for axis in AXES}
"""Axis -> every key that means something only where the axis is not neutral."""
_FIELDS = {"sparsity_pattern": "pattern"}
"""Keys of [space] whose field of `LayerSpec` is called otherwise."""
_NEUTRAL = LayerSpec()
_MAX_UNIFORM = 24


def build_space(
    task: Task,
    anatomy: Anatomy,
    costs: Costs | None = None,
    *,
    weights: Weights | None = None,
    structured: Structured | None = None,
    profiles: Sequence[HardwareProfile] = (),
) -> SearchSpace:
    """The decision groups of this model under [space], in the order in which they run.

    A group is what shares a tensor, named by its first layer. Its levels are the combinations of the axes' values that
    can be applied to every layer of it, each by each method (and format, group, …) of the axes that are active in it,
    the neutral level first where it is allowed, then from the dearest to the cheapest by `costs` (default:
    `estimate_bytes`). Layers that are left alone, or may only be neutral, are no part of the space. Ranks by number and
    by energy become each layer's own shares; the latter look at `weights`.

    Raises `TaskError`: no layer that can be compressed, a glob that matches nothing, an axis that fits no layer, a
    method that is not registered, nothing left to decide.
    """
    section = _with_native_scope(task.space, task.hardware.runtime)
    if not anatomy.layers:
        raise TaskError(
            "the model has no layer that can be compressed; paredown compresses Linear, Conv1d, Conv2d (transposed "
            "ones too) and Embedding"
        )
    _check_globs(section, anatomy)
    _check_methods(section)
    _check_axes(section, anatomy)
    _check_products(section, anatomy)
    by_fqn = {layer.fqn: layer for layer in anatomy.layers}
    groups = structural_groups(section, structured) if structured is not None else []
    for fqns in _groups(anatomy):
        layers = [by_fqn[fqn] for fqn in fqns]
        if any(fnmatchcase(fqn, glob) for fqn in fqns for glob in section.leave):
            continue
        levels = _levels(layers, section, costs, weights, [profile for profile in profiles if profile.saturates])
        if levels != (_NEUTRAL,):
            _check_sums(layers, levels, task.hardware.runtime)
            groups.append(Group(name=fqns[0], layers=fqns, levels=levels))
    if not groups:
        left = f"all {len(anatomy.layers)} layers are left alone"
        raise TaskError(
            f"[space] leaves nothing to decide: {left}; narrow space.leave, or allow more values than the neutral ones"
        )
    return SearchSpace(groups=tuple(groups))


def _check_sums(layers: Sequence[LayerInfo], levels: Sequence[LayerSpec], runtime: str) -> None:
    """Raises `TaskError` for what OpenVINO refuses to export, before anything is searched."""
    summed = next((layer for layer in layers if layer.residual_output), None)
    if runtime == "openvino" and summed and any(spec.activation_scope == "tensor" for spec in levels):
        raise TaskError(
            f"space.activation_scope: 'tensor' rounds what {summed.fqn} gives to a sum, and OpenVINO drops that "
            "rounding where it fuses the sum; take 'layer', or leave the key out: it is as fast there"
        )


def native_scope(runtime: str) -> str:
    """What `activation_scope` "auto" means: where the runtime has no integer kernel for a convolution whose output is
    not rounded, that is what "tensor" is for."""
    return "tensor" if runtime == "onnxruntime" else "layer"


def _with_native_scope(section: SpaceSection, runtime: str) -> SpaceSection:
    def resolved(table: Any) -> Any:
        if table.activation_scope is None:
            return table
        scopes = dict.fromkeys(native_scope(runtime) if s == "auto" else s for s in table.activation_scope)
        return table.model_copy(update={"activation_scope": tuple(scopes)})

    overrides = {glob: resolved(table) for glob, table in section.overrides.items()}
    found: SpaceSection = resolved(section).model_copy(update={"overrides": overrides})
    return found


def uniform_settings(space: SearchSpace) -> list[tuple[str, Candidate]]:
    """The same treatment everywhere, once for each treatment that the space offers: (label, candidate), from the
    dearest to the cheapest. Two methods are two treatments.

    A group without that level takes its nearest dearer one: of its levels that are no stronger on any axis, the
    cheapest, by the same methods if it can be. The all-neutral candidate (the original) is left out, and so are
    repetitions. Of more than 24 treatments, those of weights and activations, and those that change one axis alone.
    """
    offered = {spec for group in space.groups for spec in group.levels if not spec.is_neutral and spec.keep > 0.0}
    if len(offered) > _MAX_UNIFORM:
        offered = {spec for spec in offered if _is_plain(spec)}
    settings: dict[Candidate, str] = {}
    for spec in sorted(offered, key=_dearest_first):
        candidate = Candidate(levels=tuple(_nearest_level(group, spec) for group in space.groups))
        if any(not group.levels[level].is_neutral for group, level in zip(space.groups, candidate, strict=True)):
            settings.setdefault(candidate, spec.label())
    return [(label, candidate) for candidate, label in settings.items()]


def check_reachable(
    task: Task, least: Mapping[str, float], most: Mapping[str, float], *, profile: str | None = None,
    predicted: bool = False,
) -> None:  # fmt: skip
    """Refuse limits that no candidate can keep: `least` and `most` are the bounds of each cost over the whole space.

    profile    of the device whose costs these are; None: the task's first
    predicted  whether its latency is, from measurements
    Only for costs that are known without running anything. Raises `TaskError` naming the limit and the bound.
    """
    for name, limit in task.cost_limits.items():
        original = most.get(name)
        top = limit.max
        if limit.max_ratio is not None and original is not None:
            top = limit.max_ratio * original if top is None else min(top, limit.max_ratio * original)
        if top is not None and name in least and least[name] > top:
            how = (
                "predicted from measurements"
                if predicted and name == "latency_ms"
                else f"modelled from the profile {profile or task.hardware.profile_name}"
            )
            by = f" ({how})" if name in MODELLED else ""
            raise TaskError(
                f"limits.{name}: at most {top:g} is asked for, and the least that this space can reach is "
                f"{least[name]:g}{by}; raise the limit, or "
                "allow stronger levels in [space]"
            )
        if limit.min is not None and original is not None and limit.min > original:
            raise TaskError(
                f"limits.{name}: at least {limit.min:g} is asked for, and the most that this model has is "
                f"{original:g}; lower min"
            )


def bounds(
    task: Task, original: Mapping[str, float], *, maximise: bool
) -> dict[str, tuple[float | None, float | None]]:
    """Name -> (lower or None, upper or None), relative limits worked out against the original's values.

    Where the task does not limit its metric, `quality.max_loss` does; it says nothing of an original at or below zero.

    maximise  whether the task's metric is
    Raises `TaskError` where a relative and an absolute limit exclude each other.
    """
    found: dict[str, tuple[float | None, float | None]] = {}
    for name, limit in task.cost_limits.items():
        low, high = limit.min, limit.max
        if limit.max_drop is not None:
            if maximise:
                low = _tighter(max, low, original[name] - limit.max_drop)
            else:
                high = _tighter(min, high, original[name] + limit.max_drop)
        if limit.max_ratio is not None:
            high = _tighter(min, high, original[name] * limit.max_ratio)
        if low is not None and high is not None and low > high:
            raise TaskError(
                f"limits.{name}: with the original at {original[name]:g} it must be at least {low:g} and at "
                f"most {high:g}; these exclude each other"
            )
        found[name] = (low, high)
    name, loss = task.metric_name, task.quality.max_loss
    if name not in found and loss < 1.0 and original.get(name, 0.0) > 0.0:
        found[name] = (original[name] * (1.0 - loss), None) if maximise else (None, original[name] / (1.0 - loss))
    return found


def estimate_bytes(layer: LayerInfo, spec: LayerSpec) -> int:
    """About what a layer's weight takes in a file: to order levels by, before anything is compressed."""
    rows, columns = layer.matrix_shape
    if spec.rank >= 1.0:
        return _matrix_bytes(rows, columns, spec)
    from ...compressors.lowrank import part_shapes  # that package needs torch

    shapes = part_shapes(spec.rank_form, spec.rank, layer.weight_shape)
    rest = shapes.pop("w.", None)
    if rest is None:
        return sum(_matrix_bytes(out, inner, spec) for out, inner in shapes.values())
    factors = dataclasses.replace(spec, sparsity=0.0, pattern="")
    if spec.weight_bits < 8:
        factors = dataclasses.replace(factors, weight_bits=8, weight_format="int", group_size=0)
    return _matrix_bytes(*rest, spec) + sum(_matrix_bytes(out, inner, factors) for out, inner in shapes.values())


def _matrix_bytes(rows: int, columns: int, spec: LayerSpec) -> int:
    n = rows * columns
    scales = 0
    if spec.weight_bits < 16:
        tall, size = spec.block
        n_scales = 1 if spec.group_size == "tensor" else ceil(rows / tall) * (ceil(columns / size) if size else 1)
        scales = n_scales * spec.scale_bits // 8
        scales += ceil(n_scales * spec.weight_bits / 8) if spec.weight_format == "int_asym" else 0
        scales += 2**spec.weight_bits * spec.scale_bits // 8 if spec.weight_format == "palette" else 0
    dense = ceil(n * spec.weight_bits / 8)
    if spec.sparsity == 0.0:
        return dense + scales
    return min(dense, ceil(n / 8) + ceil(n * (1.0 - spec.sparsity) * spec.weight_bits / 8)) + scales


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
    """An axis that was asked for must fit some layer. The default axes may fit none: nobody asked for them."""
    from ...compressors import applicable

    for axis in AXES:
        values = getattr(section, axis)
        if values == type(section).model_fields[axis].default:
            continue
        chosen = {key: getattr(section, key) for key in ("sparsity_pattern", "rank_form")}
        specs = [spec for value in values for spec in _alone(axis, value, chosen)]
        changing = [spec for spec in specs if not spec.is_neutral]
        reasons = [applicable(spec, layer) for spec in changing for layer in anatomy.layers]
        if reasons and all(reason is not None for reason in reasons):
            raise TaskError(
                f"space.{axis} = {list(values)} fits no layer of this model: {anatomy.layers[0].fqn}: "
                f"{reasons[0]}; leave {axis} out"
            )


def _check_products(section: SpaceSection, anatomy: Anatomy) -> None:
    """Products of attention that were asked for must be there."""
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
    """A method must be registered, and must have something to do."""
    from ...compressors import is_method, methods

    tables = [("space", section), *((f'space.overrides."{glob}"', over) for glob, over in section.overrides.items())]
    for axis, key in METHODS.items():
        kind, neutral = key.removesuffix("_method"), getattr(_NEUTRAL, axis)
        known = methods(kind)
        active = any(value != neutral for _, table in tables for value in getattr(table, axis) or ())
        for where, table in tables:
            names = getattr(table, key) or ()
            if unknown := [name for name in names if not is_method(kind, name)]:
                raise TaskError(
                    f"{where}.{key}: there is no {key.replace('_', ' ')} {unknown[0]!r}; known are {', '.join(known)}. "
                    "One of your own is registered by a file that the task names in plugins"
                )
            if not active and any(name != getattr(_NEUTRAL, key) for name in names):
                raise TaskError(
                    f"{where}.{key} = {list(names)} has nothing to do: no value of space.{axis} changes a layer; "
                    f"add some, or leave {key} out"
                )
    for where, table in tables:
        _check_stored(where, table, section)
        _check_patterns(where, table, section)


def _check_stored(where: str, table: Section, section: SpaceSection) -> None:
    """Each format must have one of the widths, each width a format, and some method must know the format."""
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


def _check_patterns(where: str, table: Section, section: SpaceSection) -> None:
    """Each N:M must have its share among the sparsities, and a pattern something to do."""
    chosen = {key: getattr(table, key) or getattr(section, key) for key in ("sparsity", "sparsity_pattern")}
    shares = [share for share in chosen["sparsity"] if share != 0.0]
    if not shares and any(chosen["sparsity_pattern"]):
        raise TaskError(
            f"{where}.sparsity_pattern = {list(chosen['sparsity_pattern'])} has nothing to do: no value of "
            f"space.sparsity changes a layer; add some, or leave sparsity_pattern out"
        )
    for pattern in chosen["sparsity_pattern"]:
        if shares and not any(_agrees(share, pattern) for share in shares):
            raise TaskError(
                f"{where}.sparsity_pattern: {pattern!r} means a sparsity of {Pattern.parse(pattern).share:.4g}, and "
                f"sparsity offers {', '.join(f'{share:g}' for share in shares)}; add it, or leave {pattern!r} out"
            )
    for share in shares:
        if not any(_agrees(share, pattern) for pattern in chosen["sparsity_pattern"]):
            raise TaskError(
                f"{where}.sparsity: none of the patterns {', '.join(chosen['sparsity_pattern'])} has a share of "
                f"{share:g}; add '' (zeros anywhere) to sparsity_pattern, or leave {share:g} out"
            )


def _of_axis(axis: str, value: Any) -> LayerSpec:
    """That axis alone; a width in the first format that has it."""
    if axis == "weight_bits" and value != FLOAT_BITS:
        return LayerSpec(weight_bits=value, weight_format=formats(value)[0])
    return LayerSpec.from_dict({axis: value})


def _groups(anatomy: Anatomy) -> Iterable[tuple[str, ...]]:
    """In the order of their first layer's run; a layer that no group names is one by itself."""
    home = {fqn: group for group in anatomy.groups for fqn in group}
    order = {fqn: position for position, fqn in enumerate(anatomy.fqns)}
    groups = dict.fromkeys(
        tuple(sorted((f for f in home.get(fqn, (fqn,)) if f in order), key=order.__getitem__)) for fqn in anatomy.fqns
    )
    return list(groups)


def _levels(
    layers: Sequence[LayerInfo],
    section: SpaceSection,
    costs: Costs | None,
    weights: Weights | None,
    saturating: Sequence[HardwareProfile],
) -> tuple[LayerSpec, ...]:
    offers = [_offered(layer, section, weights) for layer in layers]
    common = [spec for spec in offers[0] if all(spec in other for other in offers[1:])]
    if not common:
        names = ", ".join(layer.fqn for layer in layers)
        raise TaskError(
            f"[space] gives {names}, which share a tensor, no level in common; give them the same space.overrides"
        )

    common = list(dict.fromkeys(without_saturation(layers, spec, saturating) for spec in common))

    def cost(spec: LayerSpec) -> int:
        return sum(costs(layer.fqn, spec) if costs else estimate_bytes(layer, spec) for layer in layers)

    return tuple(sorted(common, key=lambda spec: (not spec.is_neutral, -cost(spec), *_dearest_first(spec))))


def _offered(layer: LayerInfo, section: SpaceSection, weights: Weights | None = None) -> list[LayerSpec]:
    """Every combination that can be applied to this layer. An axis of which no value fits it is left neutral there, and
    where the pattern of a combination does not fit, the layer stays dense in it."""
    keys = (*AXES, *(key for keys in KEYS.values() for key in keys), "rank_number", "rank_energy")
    chosen = {key: getattr(section, key) for key in keys}
    for glob, override in section.overrides.items():
        if fnmatchcase(layer.fqn, glob):
            chosen |= {key: values for key in keys if (values := getattr(override, key)) is not None}
    fit: dict[LayerSpec, None] = {}
    for form in chosen["rank_form"]:
        ranks = (*chosen["rank"], *_own_ranks(layer, form, chosen, weights))
        fit |= dict.fromkeys(_fitting(layer, {**chosen, "rank": ranks, "rank_form": (form,)}))
    return list(fit) or [_NEUTRAL]


def _fitting(layer: LayerInfo, chosen: Mapping[str, Sequence[Any]]) -> Iterable[LayerSpec]:
    from ...compressors import applicable

    fitting = {}
    for axis in AXES:
        values = chosen[axis]
        usable = [value for value in values if any(applicable(s, layer) is None for s in _alone(axis, value, chosen))]
        fitting[axis] = usable or [getattr(_NEUTRAL, axis)]
    for values in product(*fitting.values()):
        for spec in _by_each_method(dict(zip(AXES, values, strict=True)), chosen):
            ways = (spec, _without_group(spec), _without_zeros(spec), _of_layer(spec), _of_layer(_without_group(spec)))
            yield from [s for s in ways if applicable(s, layer) is None][:1]


def _alone(axis: str, value: Any, chosen: Mapping[str, Sequence[Any]]) -> list[LayerSpec]:
    """That value by itself, in each of the forms in which it could be."""
    if axis == "rank" and value != 1.0:
        plain = [LayerSpec(rank=value, rank_form=form) for form in chosen["rank_form"] if form != "residual"]
        return plain or [_NEUTRAL]  # a residual is judged with the bits or zeros of its rest
    if axis == "sparsity" and value != 0.0:
        return [
            LayerSpec(sparsity=value, pattern=pattern)
            for pattern in chosen["sparsity_pattern"]
            if _agrees(value, pattern)
        ]
    return [_of_axis(axis, value)]


def _agrees(sparsity: float, pattern: str) -> bool:
    """Whether this share is the one that the pattern fixes, if it fixes one."""
    share = Pattern.parse(pattern).share
    return share is None or abs(share - sparsity) < 1e-3


def _own_ranks(
    layer: LayerInfo, form: str, chosen: Mapping[str, Sequence[Any]], weights: Weights | None
) -> list[float]:
    """Ranks by number and by energy as shares of this layer's full rank; none where it has none to lower."""
    numbers, energies = chosen["rank_number"], chosen["rank_energy"]
    if not numbers and not energies:
        return []
    from ...compressors.lowrank import energy_rank, full_rank, misfit, rank_share, unfolded

    if layer.kind == "embedding" or layer.groups != 1 or misfit(form, layer.weight_shape) is not None:
        return []
    full = full_rank(form, layer.weight_shape)
    ranks = [number for number in numbers if number < full]
    if energies:
        if weights is None:
            raise TaskError("space.rank_energy looks at the weights, and the model is not at hand here")
        matrix = unfolded(
            form, weights(layer.fqn).detach().float().cpu().reshape(layer.matrix_shape), layer.weight_shape
        )
        ranks += [rank for energy in energies if (rank := energy_rank(matrix, energy)) < full]
    return [rank_share(rank, full) for rank in dict.fromkeys(ranks)]


def _by_each_method(values: Mapping[str, Any], chosen: Mapping[str, Sequence[Any]]) -> Iterable[LayerSpec]:
    """These values of the axes by every combination of the keys of the active ones; a neutral axis has none.

    Combinations that there are not (a width that the format lacks, a share that N:M does not mean) are left out.
    """
    active = [key for axis in AXES if values[axis] != getattr(_NEUTRAL, axis) for key in KEYS[axis]]
    for names in product(*(chosen[key] for key in active)):
        data = {**values, **dict(zip(active, names, strict=True))}
        bits = data["weight_bits"]
        if bits != FLOAT_BITS and bits not in FORMAT_BITS[data["weight_format"]]:
            continue
        if not _agrees(data["sparsity"], data.get("sparsity_pattern", "")):
            continue
        if data.get("weight_format") in ("fp16", "bf16"):  # a cast has neither scales nor a choice of codes
            data |= {"group_size": 0, "scale_bits": 32, "weight_method": chosen["weight_method"][0]}
        if data.get("activation_scheme") == "dynamic":  # nothing to calibrate, so no choice of a range
            data["activation_method"] = _NEUTRAL.activation_method
            data["activation_scope"] = "layer"
        yield LayerSpec.from_dict({_FIELDS.get(key, key): value for key, value in data.items()})


def _without_zeros(spec: LayerSpec) -> LayerSpec:
    """Where the pattern does not fit, the layer stays dense."""
    if not spec.pattern:
        return spec
    return dataclasses.replace(spec, sparsity=0.0, pattern="", sparsity_method=_NEUTRAL.sparsity_method)


def _without_group(spec: LayerSpec) -> LayerSpec:
    """Where rows are no longer than the group, the group is the row."""
    return dataclasses.replace(spec, group_size=0) if spec.group_size not in (0, "tensor") else spec


def _of_layer(spec: LayerSpec) -> LayerSpec:
    """Where no one else reads the input, and the output goes into no sum, the tensor is the layer's."""
    return dataclasses.replace(spec, activation_scope="layer")


def _dearest_first(spec: LayerSpec) -> tuple[Any, ...]:
    """Orders specs of one layer size by about what they store; then activations in FP32 and built-in methods first.
    Total, so that the order never varies.
    """
    density = spec.weight_bits * (1.0 - spec.sparsity) * spec.rank * spec.keep
    keys = [*(_FIELDS.get(key, key) for axis in AXES for key in KEYS[axis]), "keep_method"]
    ways = [str(getattr(spec, key)) for key in keys]
    own = [getattr(spec, key) != getattr(_NEUTRAL, key) for key in keys]
    return (-density, -spec.activation_bits, -spec.weight_bits, spec.sparsity, -spec.rank, *own, *ways)


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
    return (*(getattr(spec, axis) for axis in AXES), spec.keep)


def _n_methods_shared(one: LayerSpec, other: LayerSpec) -> int:
    keys = [_FIELDS.get(key, key) for keys in KEYS.values() for key in keys]
    return sum(getattr(one, key) == getattr(other, key) for key in keys)


def _is_plain(spec: LayerSpec) -> bool:
    changed = [
        spec.weight_bits != FLOAT_BITS,
        spec.changes_activation,
        spec.sparsity > 0.0,
        spec.rank < 1.0,
        spec.keep < 1.0,
    ]
    return sum(changed) == 1 or (spec.sparsity == 0.0 and spec.rank == 1.0)


def _tighter(choose: Callable[[float, float], float], given: float | None, derived: float) -> float:
    return derived if given is None else choose(given, derived)
