"""Costs of candidates that remove something: exact ones for a trial, approximate ones for the table.

Removing rows of one layer and columns of another multiplies, so the cost is no sum over groups. A trial's costs are
those of the model that remains. The searcher's table needs sums. There, a set's row is what it saves alone while the
layers are at their smallest, so that no sum is below zero. One factor shrinks the rows, so that all sets at their
smallest save what they save together. Both ends are exact; between them the table saves too little.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

from ...compressors import LayerSpec
from ..values import is_structural, layers_of, metric_on_device

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...compressors import Anatomy
    from ...compressors.structure import Removal
    from ..problem import Problem
    from ..values import Candidate
    from ._pruned_model import PrunedModel, PrunedModelBuilder

GroupCosts: TypeAlias = tuple[tuple[float, ...], ...]
"""A metric's value for each level of each group."""


def exact_totals(problem: Problem, pruned_models: PrunedModelBuilder, candidate: Candidate) -> dict[str, float]:
    """Compute the costs of a candidate that removes something, by metric, without a forward pass.

    They are the bytes of the stored file, MACs, BOPs, and what each device's model says. Raises as
    `PrunedModelBuilder.build` does.
    """
    pruned = pruned_models.build(problem.space.assignment(candidate))
    totals = _counted(problem, pruned.anatomy, pruned.assignment)
    totals["bytes"] = float(structure_bytes(pruned.removal) + _file_bytes(pruned_models.model(pruned.removal), pruned))
    return totals


def macs_left(problem: Problem, pruned_models: PrunedModelBuilder, assignment: Mapping[str, LayerSpec]) -> float:
    """Count the MACs that remain under an assignment that removes something, as its trial counts them."""
    pruned = pruned_models.build(assignment)
    return _counted(problem, pruned.anatomy, pruned.assignment)["macs"]


def structure_text(removal: Removal) -> str:
    """Write the structure file of an artifact of the format "paredown": what is removed, as a line of JSON."""
    return json.dumps(removal.to_dict(), separators=(",", ":")) + "\n"


def structure_bytes(removal: Removal) -> int:
    """Give the length of the structure file in bytes."""
    return len(structure_text(removal).encode())


def with_structure(
    problem: Problem,
    costs: Mapping[str, GroupCosts],
    fixed: Mapping[str, float],
    stored: Mapping[tuple[str, LayerSpec], int],
) -> tuple[dict[str, GroupCosts], dict[str, float]]:
    """Add the rows of sets and blocks to costs of the layers' groups.

    costs, fixed  of the layers' groups, as `static_costs` gives them
    stored        (fqn, spec) -> that layer's share of the stored file, in bytes
    """
    from ..space import removed_anatomy

    groups = problem.space.groups
    structural = [group for group in groups if is_structural(group.name)]
    least: dict[str, LayerSpec] = {}
    for group in groups:
        if not is_structural(group.name):
            spec = min(group.levels, key=lambda level: sum(stored[fqn, level] for fqn in group.layers))
            least |= dict.fromkeys(group.layers, spec)

    def totals(chosen: Mapping[str, LayerSpec]) -> dict[str, float]:
        structured = problem.context.structured
        removal = structured.removal(problem.context.model, chosen) if structured is not None else None
        anatomy = removed_anatomy(problem.anatomy, removal)
        found = _counted(problem, anatomy, {fqn: spec for fqn, spec in least.items() if fqn in anatomy.fqns})
        found["bytes"] = sum(
            stored[layer.fqn, least.get(layer.fqn, LayerSpec())]
            * layer.n_weights
            / problem.anatomy[layer.fqn].n_weights
            for layer in anatomy.layers
        )
        if removal is not None:
            found["bytes"] -= _bytes_beside(problem, removal)
        return found

    whole = totals({})
    smallest = totals({group.name: group.levels[-1] for group in structural})
    alone = {group.name: [totals({group.name: spec}) for spec in group.levels] for group in structural}
    rows, all_fixed = dict(costs), dict(fixed)
    for name in costs:
        most = sum(max(whole[name] - level[name] for level in levels) for levels in alone.values())
        factor = min(1.0, (whole[name] - smallest[name]) / most) if most > 0 else 0.0
        saved = {key: [factor * (whole[name] - level[name]) for level in levels] for key, levels in alone.items()}
        plain = iter(costs[name])
        rows[name] = tuple(
            tuple(max(saved[group.name]) - value for value in saved[group.name])
            if is_structural(group.name)
            else next(plain)
            for group in groups
        )
        all_fixed[name] = fixed[name] - sum(max(values) for values in saved.values())
    return rows, all_fixed


def _bytes_beside(problem: Problem, removal: Removal) -> float:
    """Count the removed bytes of tensors that are no layer's weight: biases, norms, experts that lie in one tensor."""
    from ...compressors import module_at, weight_at
    from ...compressors.structure import cut_tensors, gone_modules

    model = problem.context.model
    weights = {id(weight_at(model, fqn)) for fqn in problem.anatomy.fqns}
    inside = {id(t): t for fqn in gone_modules(model, removal) for t in _tensors_of(module_at(model, fqn))}
    sizes = _stored_sizes(model)
    lost = sum(t.numel() * sizes.get(key, t.element_size()) for key, t in inside.items() if key not in weights)
    for tensor, axes in cut_tensors(model, removal):
        if id(tensor) not in weights and id(tensor) not in inside:
            left = tensor.numel()
            for axis, kept in axes.items():
                left = left // tensor.shape[axis] * len(kept)
            lost += (tensor.numel() - left) * sizes.get(id(tensor), tensor.element_size())
    return float(lost)


def _stored_sizes(model: nn.Module) -> dict[int, int]:
    """Identity of each widened tensor -> bytes of a number in its source's type."""
    import torch

    from ...compressors.anatomy import source_dtypes

    tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    tensors |= dict(model.named_buffers(remove_duplicate=False))
    known = source_dtypes(model)
    return {id(t): getattr(torch, known[name]).itemsize for name, t in tensors.items() if name in known}


def _tensors_of(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _counted(problem: Problem, anatomy: Anatomy, assignment: Mapping[str, LayerSpec]) -> dict[str, float]:
    from ...evaluators import bops, macs

    plain = layers_of(assignment)
    found = {"macs": float(macs(anatomy, plain).total), "bops": float(bops(anatomy, plain).total)}
    for n, device in enumerate(problem.devices):
        suffix = device.profile.name if n else None
        found |= {metric_on_device(name, suffix): value for name, value in device.whole(anatomy, plain).items()}
    return found


def _file_bytes(model: nn.Module, pruned: PrunedModel) -> int:
    """Compute the length of the file that `save_model` would write of the pruned model."""
    from ...compressors import fixed_bytes, layer_bytes

    total = fixed_bytes(model, pruned.anatomy)
    for layer in pruned.anatomy.layers:
        total += layer_bytes(layer, pruned.assignment.get(layer.fqn, LayerSpec()), pruned.variants.get(layer.fqn))
    return total
