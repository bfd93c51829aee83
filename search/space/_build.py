"""The search space, made of a task and the layers of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ...compressors import Anatomy, LayerInfo, LayerSpec
from ...errors import TaskError
from ..values import Group, SearchSpace
from ._estimate import estimate_bytes
from ._levels import dearest_first, levels_of
from ._saturation import without_saturation
from ._scope import with_native_scope
from ._structural_groups import structural_groups
from ._validate import check_section, check_sums

if TYPE_CHECKING:
    from ...hardware_profiles import HardwareProfile
    from ..task import SpaceSection, Task
    from ._ranks import Weights
    from ._structured import Structured

Costs = Callable[[str, LayerSpec], int]
"""(fqn, spec) -> stored bytes of that layer."""

_NEUTRAL = LayerSpec()


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

    A group is the layers that share a tensor, named by its first one. Its levels are the combinations of the axes'
    values that can be applied to each of its layers, by each method (and format, group, …) of the active axes. The
    neutral level comes first where it is allowed; the others go from the dearest to the cheapest by `costs` (default:
    `estimate_bytes`). Layers that are left alone, or may only be neutral, are no part of the space. Ranks by number and
    by energy become each layer's own shares; ranks by energy look at `weights`.

    Raises `TaskError`: no layer that can be compressed, a glob that matches nothing, an axis that fits no layer, a
    method that is not registered, nothing left to decide.
    """
    section = with_native_scope(task.space, task.hardware.runtime)
    if not anatomy.layers:
        raise TaskError(
            "the model has no layer that can be compressed; paredown compresses Linear, Conv1d, Conv2d (transposed "
            "ones too) and Embedding"
        )
    check_section(section, anatomy)
    by_fqn = {layer.fqn: layer for layer in anatomy.layers}
    groups = structural_groups(section, structured) if structured is not None else []
    for fqns in _groups(anatomy):
        layers = [by_fqn[fqn] for fqn in fqns]
        if any(fnmatchcase(fqn, glob) for fqn in fqns for glob in section.leave):
            continue
        levels = _levels(layers, section, costs, weights, [profile for profile in profiles if profile.saturates])
        if levels != (_NEUTRAL,):
            check_sums(layers, levels, task.hardware.runtime)
            groups.append(Group(name=fqns[0], layers=fqns, levels=levels))
    if not groups:
        left = f"all {len(anatomy.layers)} layers are left alone"
        raise TaskError(
            f"[space] leaves nothing to decide: {left}; narrow space.leave, or allow more values than the neutral ones"
        )
    return SearchSpace(groups=tuple(groups))


def _groups(anatomy: Anatomy) -> Iterable[tuple[str, ...]]:
    """Groups in the order in which their first layer runs; a layer that no group names is one by itself."""
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
    offers = [levels_of(layer, section, weights) for layer in layers]
    common = [spec for spec in offers[0] if all(spec in other for other in offers[1:])]
    if not common:
        names = ", ".join(layer.fqn for layer in layers)
        raise TaskError(
            f"[space] gives {names}, which share a tensor, no level in common; give them the same space.overrides"
        )

    common = list(dict.fromkeys(without_saturation(layers, spec, saturating) for spec in common))

    def cost(spec: LayerSpec) -> int:
        return sum(costs(layer.fqn, spec) if costs else estimate_bytes(layer, spec) for layer in layers)

    return tuple(sorted(common, key=lambda spec: (not spec.is_neutral, -cost(spec), *dearest_first(spec))))
