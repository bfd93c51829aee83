"""The resident model's layers: their variants, made once and kept open, and the values that repair the others.

A variant depends on the layer's weight, its spec and the calibration data, and on nothing that was computed before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ...compressors import (
        CompressedModel,
        LayerGradients,
        LayerInfo,
        LayerMoments,
        LayerSpec,
        Repairs,
        Variant,
    )
    from ...compressors.structure import Removal
    from ..problem import EvaluationContext


class LayerVariants:
    """Makes variants of the layers of one model, and corrects its biases and batch norms.

    Variants stay open (memory-mapped) from one candidate to the next. The task's plugins are loaded first, because
    they may define the methods.

    resident  the model in memory, whose layers can be pointed at variants
    """

    def __init__(self, context: EvaluationContext) -> None:
        from ...compressors import VariantStore

        context.plugins.load()
        self.context = context
        self.resident = self._fresh_resident()
        self._store = VariantStore(context.store)
        self._variants: dict[tuple[str, LayerSpec], Variant] = {}
        self._digests: dict[str, str] = {}
        self._repairs: Repairs | None = None

    def _fresh_resident(self) -> CompressedModel:
        from ...compressors import CompressedModel

        return CompressedModel(self.context.model.eval(), self.context.anatomy, self.context.calibration)

    def reset(self) -> None:
        """Forget that a candidate was applied. The model's tensors and hooks must be the original's again."""
        self._repairs = None
        self.resident = self._fresh_resident()

    def variant(self, fqn: str, spec: LayerSpec) -> Variant:
        """Give the layer's variant from the store; build it there first if it is missing.

        Raises `SpecError` for a spec that does not fit the layer, and `IntegrityError` for a damaged file.
        """
        from ...compressors import tensor_digest

        key = (fqn, spec.weight_only)
        if key not in self._variants:
            weight, layer = self.resident.weight(fqn), self.context.anatomy[fqn]
            if fqn not in self._digests:
                self._digests[fqn] = tensor_digest(weight)
            moments, gradients = self.calibration_of(fqn, spec)
            self._variants[key] = self._store.get(
                weight, spec.weight_only, layer, weight_digest=self._digests[fqn], moments=moments, gradients=gradients
            )
        return self._variants[key]

    def variants(self, assignment: Mapping[str, LayerSpec]) -> dict[str, Variant]:
        """Give a variant for each layer whose weight the assignment changes."""
        return {fqn: self.variant(fqn, spec) for fqn, spec in assignment.items() if spec.changes_weight}

    def smaller_variant(
        self, weight: Tensor, spec: LayerSpec, layer: LayerInfo, *, moments: LayerMoments | None,
        gradients: LayerGradients | None,
    ) -> Variant:  # fmt: skip
        """Give the variant of a layer that has lost rows or columns: `weight` and `layer` are of what is left."""
        return self._store.get(weight, spec.weight_only, layer, moments=moments, gradients=gradients)

    def calibration_of(self, fqn: str, spec: LayerSpec) -> tuple[LayerMoments | None, LayerGradients | None]:
        """Give what calibration knows of the whole layer: input moments and gradients, each if the spec uses it."""
        from ...compressors import needs_gradients, uses_moments

        moments, gradients = self.context.calibration.moments, self.context.calibration.gradients
        return (
            moments.get(fqn) if moments is not None and uses_moments(spec) else None,
            gradients.get(fqn) if gradients is not None and needs_gradients(spec) else None,
        )

    def repair_values(
        self,
        assignment: Mapping[str, LayerSpec],
        variants: Mapping[str, Variant],
        *,
        batch_norm: bool,
        removal: Removal | None = None,
    ) -> Mapping[str, Tensor]:
        """Compute the biases and batch norms that repair an assignment, as tensors of the whole model by name.

        Biases are corrected where the task says so. The model must hold its own values.

        batch_norm  whether the statistics of batch norms are estimated anew, which takes a forward pass
        removal     what is masked meanwhile
        """
        values: Mapping[str, Tensor] = {}
        if self.context.repair.bias:
            values = self._own_repairs().corrected_biases(assignment, variants, removal)
        return self._own_repairs().recalibrated_norms(assignment, variants, values, removal) if batch_norm else values

    def _own_repairs(self) -> Repairs:
        """Make them at the first use, because that takes a forward pass."""
        from ...compressors import Repairs

        if self._repairs is None:
            context = self.context
            self._repairs = Repairs(
                self.resident, context.calibration.moments, context.repair_inputs, context.split.mask
            )
        return self._repairs
