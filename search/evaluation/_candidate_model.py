"""The resident model as a candidate: its layers compressed, parts of it masked, its other values repaired."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..values import layers_of, structure_of
from ._pruned_model import PrunedModelBuilder
from ._variants import LayerVariants

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...compressors import LayerSpec
    from ..problem import EvaluationContext
    from ..values import Candidate


class CandidateModel:
    """Makes the resident model behave as a candidate for a while, and undoes it, even after an interruption.

    One candidate is applied at a time. No weight is copied.

    layers         variants of the whole layers, and the resident model
    pruned_models  pruned models, with variants of the layers that remain
    """

    def __init__(self, context: EvaluationContext) -> None:
        self.context = context
        self.layers = LayerVariants(context)
        self.pruned_models = PrunedModelBuilder(self.layers)
        model = context.model
        self._tensors = [(tensor, tensor.data) for tensor in (*model.parameters(), *model.buffers())]
        self._hooks = {m: (frozenset(m._forward_pre_hooks), frozenset(m._forward_hooks)) for m in model.modules()}
        self._forwards: dict[nn.Module, Any] = {m: vars(m).get("forward") for m in model.modules()}

    @contextmanager
    def applied(self, candidate: Candidate, *, batch_norm: bool = True) -> Iterator[nn.Module]:
        """Inside the block, the model behaves as the candidate, repaired as the task says for trials.

        batch_norm  False spares the pass for the batch norms, which a candidate that removes something gets anyway

        Raises `ConfigError` or `SpecError` for a candidate that cannot be applied.
        """
        assignment = self.context.space.assignment(candidate)
        # a removal without its batch norms looks much worse than it is, and no prefix is replayed for it
        asked = batch_norm or bool(structure_of(assignment))
        with self.apply(assignment, batch_norm=asked and self.context.repair.batch_norm == "trials") as model:
            yield model

    @contextmanager
    def apply(self, assignment: Mapping[str, LayerSpec], *, batch_norm: bool) -> Iterator[nn.Module]:
        """Inside the block, the model behaves as the assignment says; removed parts are masked.

        batch_norm  whether the statistics of batch norms are estimated anew
        """
        from ...compressors import installed
        from ...compressors.structure import masked

        resident = self.layers.resident
        if structure_of(assignment):
            pruned = self.pruned_models.build(assignment)
            variants = self.pruned_models.whole_variants(pruned)
            values = self.pruned_models.repair_values(pruned, variants, batch_norm=batch_norm)
            with (
                resident.apply(pruned.assignment, variants) as model,
                masked(model, pruned.removal),
                installed(model, values),
            ):
                yield model
            return
        plain = layers_of(assignment)
        variants = self.layers.variants(plain)
        values = self.layers.repair_values(plain, variants, batch_norm=batch_norm)
        with resident.apply(plain, variants) as model, installed(model, values):
            yield model

    @contextmanager
    def repaired(self, assignment: Mapping[str, LayerSpec]) -> Iterator[None]:
        """Inside the block, the model has its original weights and the other values of `export_values`."""
        from ...compressors import installed

        with installed(self.context.model, self.export_values(assignment)):
            yield

    def export_values(self, assignment: Mapping[str, LayerSpec]) -> Mapping[str, Tensor]:
        """Compute the biases and batch norms of the artifact of an assignment that removes nothing.

        They are those of its trial. Batch norms follow also where the task repairs them for finalists only.
        """
        batch_norm = self.context.repair.batch_norm in ("finalists", "trials")
        return self.layers.repair_values(assignment, self.layers.variants(assignment), batch_norm=batch_norm)

    def reset(self) -> None:
        """Restore the original model after an interruption at any point, even while something was being undone."""
        import torch

        for tensor, data in self._tensors:
            tensor.data = data
        for module, known in self._hooks.items():
            for hooks, before in zip((module._forward_pre_hooks, module._forward_hooks), known, strict=True):
                for key in [key for key in hooks if key not in before]:
                    del hooks[key]
        for module, forward in self._forwards.items():
            if forward is None:
                vars(module).pop("forward", None)
            else:
                vars(module)["forward"] = forward
        torch.set_grad_enabled(True)
        self.layers.reset()
