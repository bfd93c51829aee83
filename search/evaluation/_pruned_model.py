"""A worker's part where something of the model is removed: masked for a trial, really removed for an export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations
from typing import TYPE_CHECKING

from ...compressors.values import LayerSpec, weight_name
from ...errors import ParedownError
from ..space import removed_anatomy
from ..values import layers_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...compressors import Anatomy, LayerInfo, Variant
    from ...compressors.structure import Removal
    from ._worker import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedModel:
    """What is left: removal, the layers' anatomy, and what each of them becomes (see `fitting`), with its variants (of
    their own, smaller shapes)."""

    removal: Removal
    anatomy: Anatomy
    assignment: Mapping[str, LayerSpec]
    variants: Mapping[str, Variant]


def fitting(spec: LayerSpec, layer: LayerInfo) -> LayerSpec:
    """The treatment of a layer that is smaller than the space knows it, as `[space]` has it for small layers: where
    rows are no longer than the group, the group is the row; zeros whose pattern does not fit, and a rank that saves
    nothing, are left out. What fits in none of these ways comes back as it is: compressing says why it cannot be."""
    from ...compressors import applicable

    ways = ("group_size", "sparsity", "rank")
    for n in range(len(ways) + 1):  # as little as possible is given up
        for given_up in combinations(ways, n):
            milder = reduce(LayerSpec.without, given_up, spec)
            if applicable(milder, layer) is None:
                return milder
    return spec


class PrunedModelBuilder:
    """Compresses what is left of the layers. What was made for one candidate serves the next: a layer depends on its
    spec and on which of its rows and columns stay, and on nothing else."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._variants: dict[tuple[str, LayerSpec, tuple[object, ...]], Variant] = {}
        self._models: tuple[Removal | None, nn.Module | None] = (None, None)

    def cut(self, assignment: Mapping[str, LayerSpec]) -> PrunedModel:
        """Raises `ConfigError` for what cannot be removed, `SpecError` for what cannot be done to what is left."""
        context = self.worker.context
        if context.structured is None:
            raise ParedownError("this bench removes nothing, and was asked to")
        removal = context.structured.removal(context.model, assignment)
        if removal is None:
            raise ParedownError("this assignment removes nothing, and was taken for one that does")
        anatomy = removed_anatomy(context.anatomy, removal)
        left = {fqn: fitting(spec, anatomy[fqn]) for fqn, spec in layers_of(assignment).items() if fqn in anatomy.fqns}
        variants = {
            fqn: self._variant(fqn, spec, removal, anatomy) for fqn, spec in left.items() if spec.changes_weight
        }
        return PrunedModel(removal=removal, anatomy=anatomy, assignment=left, variants=variants)

    def model(self, removal: Removal) -> nn.Module:
        """The model without what is removed; the last one is kept."""
        from ...compressors.structure import remove

        known, model = self._models
        if model is None or known != removal:
            model = remove(self.worker.context.model, removal)
            self._models = (removal, model)
        return model

    @contextmanager
    def applied(self, assignment: Mapping[str, LayerSpec], *, norms: bool) -> Iterator[nn.Module]:
        """Inside, the resident model answers as the removed one would, repaired as the task says; `norms`: its batch
        norms too."""
        from ...compressors import installed
        from ...compressors.structure import masked

        cut, worker = self.cut(assignment), self.worker
        whole = self._wholes(cut)
        values = self._values(cut, whole, norms=norms)
        with (
            worker._resident.apply(cut.assignment, whole) as model,
            masked(model, cut.removal),
            installed(model, values),
        ):
            yield model

    @contextmanager
    def repaired(self, assignment: Mapping[str, LayerSpec], *, norms: bool) -> Iterator[PrunedModel]:
        """Inside, the biases and batch norms of the removed model (`model`) are those that a trial has."""
        from ...compressors import installed
        from ...compressors.repair import kept_positions
        from ...compressors.structure import cut as cut_
        from ...compressors.structure import gone_modules

        cut = self.cut(assignment)
        gone = tuple(f"{fqn}." for fqn in gone_modules(self.worker.context.model, cut.removal))
        found = self._values(cut, self._wholes(cut), norms=norms)
        values = {name: value for name, value in found.items() if not name.startswith(gone)}
        for name, axes in kept_positions(self.worker.context.model, cut.removal).items():
            if name in values:
                for axis, kept in axes.items():
                    values[name] = cut_(values[name], axis, kept)
        model = self.model(cut.removal)
        with installed(model, values):
            yield cut

    def _wholes(self, cut: PrunedModel) -> dict[str, Variant]:
        return {fqn: self._whole(fqn, variant, cut.removal) for fqn, variant in cut.variants.items()}

    def _values(self, cut: PrunedModel, whole: Mapping[str, Variant], *, norms: bool) -> Mapping[str, Tensor]:
        """Of the whole model's biases and batch norms; the model must be as it was."""
        values: Mapping[str, Tensor] = {}
        if self.worker.context.repair.bias:
            values = self.worker.repairs.biases(cut.assignment, whole, cut.removal)
        return self.worker.repairs.norms(cut.assignment, whole, values, cut.removal) if norms else values

    def _variant(self, fqn: str, spec: LayerSpec, removal: Removal, anatomy: Anatomy) -> Variant:
        from ...compressors.structure import cut, gradients_left, moments_left

        axes = removal.tensors.get(weight_name(fqn))
        if not axes:
            return self.worker.variant(fqn, spec)
        key = (fqn, spec.weight_only, tuple(sorted(axes.items())))
        if key not in self._variants:
            weight: Tensor = self.worker._resident.weight(fqn)
            for axis, kept in axes.items():
                weight = cut(weight, axis, kept)
            whole = self.worker.context.anatomy[fqn]
            moments, gradients = self.worker.known(fqn, spec)
            self._variants[key] = self.worker._store.get(
                weight.detach(), spec.weight_only, anatomy[fqn],
                moments=None if moments is None else moments_left(moments, whole, axes),
                gradients=None if gradients is None else gradients_left(gradients, whole, axes),
            )  # fmt: skip
        return self._variants[key]

    def _whole(self, fqn: str, variant: Variant, removal: Removal) -> Variant:
        """The variant in the whole weight's place, zero where nothing is left."""
        import torch

        axes = removal.tensors.get(weight_name(fqn))
        if not axes:
            return variant
        shape = self.worker.context.anatomy[fqn].weight_shape
        whole = torch.zeros(shape, dtype=variant.effective.dtype)
        places = [torch.tensor(axes.get(axis, range(size))) for axis, size in enumerate(shape)]
        whole[torch.meshgrid(*places, indexing="ij")] = variant.effective
        return replace(variant, effective=whole)
