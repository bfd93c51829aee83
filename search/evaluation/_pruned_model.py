"""Models without some of their parts: what remains of the layers, compressed, and the model that has only these.

A trial masks the removed parts in the resident model (`_candidate_model.py`); an export really removes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations
from typing import TYPE_CHECKING

from ...compressors.values import LayerSpec, weight_name
from ...errors import ParedownError
from ..values import layers_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...compressors import Anatomy, LayerInfo, Variant
    from ...compressors.structure import Removal
    from ._variants import LayerVariants


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedModel:
    """The model that is left by an assignment that removes something.

    removal     the modules, rows and columns that go
    anatomy     of the layers that remain, with their smaller shapes
    assignment  fqn -> spec of each of these (see `applicable_part`)
    variants    fqn -> variant of each of these whose weight changes, of its smaller shape
    """

    removal: Removal
    anatomy: Anatomy
    assignment: Mapping[str, LayerSpec]
    variants: Mapping[str, Variant]


def applicable_part(spec: LayerSpec, layer: LayerInfo) -> LayerSpec:
    """Give as much of a spec as can be applied to a layer that has become smaller.

    The rules are those of `[space]` for small layers. Where rows are no longer than the group, the group is the row.
    Sparsity whose pattern does not fit, and a rank that saves nothing, are left out. A spec that cannot be applied in
    any of these ways is returned as it is: compressing the layer then says why.
    """
    from ...compressors import applicable

    parts = ("group_size", "sparsity", "rank")
    for n in range(len(parts) + 1):  # as little as possible is given up
        for given_up in combinations(parts, n):
            milder = reduce(LayerSpec.without, given_up, spec)
            if applicable(milder, layer) is None:
                return milder
    return spec


class PrunedModelBuilder:
    """Compresses what remains of the layers.

    A variant made for one candidate serves the next: it depends on the spec and on which rows and columns of the layer
    stay, and on nothing else.
    """

    def __init__(self, layers: LayerVariants) -> None:
        self._layers = layers
        self._context = layers.context
        self._variants: dict[tuple[str, LayerSpec, tuple[object, ...]], Variant] = {}
        self._last_model: tuple[Removal | None, nn.Module | None] = (None, None)

    def build(self, assignment: Mapping[str, LayerSpec]) -> PrunedModel:
        """Compress what an assignment leaves.

        Raises `ConfigError` for a part that cannot be removed, `SpecError` for a spec that does not fit what remains,
        and `ParedownError` for an assignment or a task that removes nothing.
        """
        from ..space import removed_anatomy

        context = self._context
        if context.structured is None:
            raise ParedownError(
                "expected a task with parts that can be removed, got one whose [space] has none of "
                "channels, heads, neurons, experts and blocks; add one of them, or prune nothing"
            )
        removal = context.structured.removal(context.model, assignment)
        if removal is None:
            raise ParedownError(
                "expected an assignment that removes something, got one that only compresses layers; apply it as it is"
            )
        anatomy = removed_anatomy(context.anatomy, removal)
        left = {
            fqn: applicable_part(spec, anatomy[fqn])
            for fqn, spec in layers_of(assignment).items()
            if fqn in anatomy.fqns
        }
        variants = {
            fqn: self._variant(fqn, spec, removal, anatomy) for fqn, spec in left.items() if spec.changes_weight
        }
        return PrunedModel(removal=removal, anatomy=anatomy, assignment=left, variants=variants)

    def model(self, removal: Removal) -> nn.Module:
        """Give a copy of the original model without the removed parts. The last one is kept for the next call."""
        from ...compressors.structure import remove

        known, model = self._last_model
        if model is None or known != removal:
            model = remove(self._context.model, removal)
            self._last_model = (removal, model)
        return model

    @contextmanager
    def repaired(self, assignment: Mapping[str, LayerSpec], *, batch_norm: bool) -> Iterator[PrunedModel]:
        """Inside the block, `model` has the biases and batch norms that a trial has.

        batch_norm  whether the statistics of batch norms are estimated anew
        """
        from ...compressors import installed
        from ...compressors.repair import kept_positions
        from ...compressors.structure import cut, gone_modules

        pruned = self.build(assignment)
        gone = tuple(f"{fqn}." for fqn in gone_modules(self._context.model, pruned.removal))
        whole = self.repair_values(pruned, self.whole_variants(pruned), batch_norm=batch_norm)
        values = {name: value for name, value in whole.items() if not name.startswith(gone)}
        for name, axes in kept_positions(self._context.model, pruned.removal).items():
            if name in values:
                for axis, kept in axes.items():
                    values[name] = cut(values[name], axis, kept)
        with installed(self.model(pruned.removal), values):
            yield pruned

    def whole_variants(self, pruned: PrunedModel) -> dict[str, Variant]:
        """Give the variants in the shapes of the whole weights, zero where rows or columns are removed."""
        return {fqn: self._whole(fqn, variant, pruned.removal) for fqn, variant in pruned.variants.items()}

    def repair_values(
        self, pruned: PrunedModel, whole: Mapping[str, Variant], *, batch_norm: bool
    ) -> Mapping[str, Tensor]:
        """Compute the biases and batch norms of the whole model that repair a pruned one (`whole_variants`).

        The resident model must hold its own values.
        """
        return self._layers.repair_values(pruned.assignment, whole, batch_norm=batch_norm, removal=pruned.removal)

    def _variant(self, fqn: str, spec: LayerSpec, removal: Removal, anatomy: Anatomy) -> Variant:
        from ...compressors.structure import cut, gradients_left, moments_left

        axes = removal.tensors.get(weight_name(fqn))
        if not axes:
            return self._layers.variant(fqn, spec)
        key = (fqn, spec.weight_only, tuple(sorted(axes.items())))
        if key not in self._variants:
            weight = self._layers.resident.weight(fqn)
            for axis, kept in axes.items():
                weight = cut(weight, axis, kept)
            whole = self._context.anatomy[fqn]
            moments, gradients = self._layers.calibration_of(fqn, spec)
            self._variants[key] = self._layers.smaller_variant(
                weight.detach(), spec, anatomy[fqn],
                moments=None if moments is None else moments_left(moments, whole, axes),
                gradients=None if gradients is None else gradients_left(gradients, whole, axes),
            )  # fmt: skip
        return self._variants[key]

    def _whole(self, fqn: str, variant: Variant, removal: Removal) -> Variant:
        import torch

        axes = removal.tensors.get(weight_name(fqn))
        if not axes:
            return variant
        shape = self._context.anatomy[fqn].weight_shape
        whole = torch.zeros(shape, dtype=variant.effective.dtype)
        places = [torch.tensor(axes.get(axis, range(size))) for axis, size in enumerate(shape)]
        whole[torch.meshgrid(*places, indexing="ij")] = variant.effective
        return replace(variant, effective=whole)
