"""Costs of every level that are known without running the model: bytes, MACs, BOPs, and what a device model says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from ..values import metric_on_device, without_structure
from ._structural_costs import GroupCosts, with_structure

if TYPE_CHECKING:
    from ...compressors import Anatomy, LayerSpec
    from ..devices import Device
    from ..problem import Problem

LevelCosts: TypeAlias = Mapping[str, GroupCosts]
"""Metric -> its value for each level of each group."""

_COUNTED = ("bytes", "macs", "bops")


def static_costs(problem: Problem, stored: Mapping[tuple[str, LayerSpec], int]) -> tuple[LevelCosts, dict[str, float]]:
    """Compute the cost of each level, and the cost that every candidate has, by metric.

    stored  (fqn, spec) -> that layer's share of the stored file, in bytes

    Costs on a device that is not the first bear its name (`metric_on_device`).
    """
    from ...compressors import LayerSpec, fixed_bytes

    anatomy, space = problem.anatomy, without_structure(problem.space)
    costs: dict[str, tuple[tuple[float, ...], ...]] = {}
    counted = [[_counted(anatomy, group.layers, spec, stored) for spec in group.levels] for group in space.groups]
    for name in _COUNTED:
        costs[name] = tuple(tuple(level[name] for level in row) for row in counted)
    decided = {fqn for group in space.groups for fqn in group.layers}
    free = tuple(fqn for fqn in anatomy.fqns if fqn not in decided)
    fixed = _counted(anatomy, free, LayerSpec(), stored)
    fixed["bytes"] += fixed_bytes(problem.context.model, anatomy)
    for device, suffix in _named(problem):
        rows = device.rows(anatomy, space)
        costs |= {metric_on_device(metric, suffix): values for metric, values in rows.costs.items()}
        fixed |= {metric_on_device(metric, suffix): value for metric, value in rows.fixed.items()}
    if space != problem.space:
        return with_structure(problem, costs, fixed, stored)
    return costs, fixed


def original_costs(problem: Problem, stored: Mapping[tuple[str, LayerSpec], int]) -> dict[str, float]:
    """Compute the costs of the original model, by metric. The argument is that of `static_costs`.

    Its bytes are those of the source, also where its channels were scaled and the source's types lack the new values.
    """
    from ...compressors import LayerSpec, fixed_bytes
    from ...compressors.anatomy import changed_bytes

    anatomy = problem.anatomy
    total = _counted(anatomy, anatomy.fqns, LayerSpec(), stored)
    total["bytes"] += fixed_bytes(problem.context.model, anatomy) - changed_bytes(problem.context.model)
    for device, name in _named(problem):
        total |= {metric_on_device(metric, name): value for metric, value in device.whole(anatomy, {}).items()}
    return total


def _named(problem: Problem) -> list[tuple[Device, str | None]]:
    return [(device, device.profile.name if n else None) for n, device in enumerate(problem.devices)]


def _counted(
    anatomy: Anatomy, fqns: Sequence[str], spec: LayerSpec, stored: Mapping[tuple[str, LayerSpec], int]
) -> dict[str, float]:
    from ...evaluators import bops, macs

    part = replace(anatomy, layers=tuple(anatomy[fqn] for fqn in fqns), unused=(), groups=())
    assignment = dict.fromkeys(fqns, spec)
    return {
        "bytes": float(sum(stored[fqn, spec] for fqn in fqns)),
        "macs": float(macs(part, assignment).total),
        "bops": float(bops(part, assignment).total),
    }
