"""Block reconstruction of exported models: learned once for each assignment, and kept in the store."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ...errors import TaskError

if TYPE_CHECKING:
    from torch import Tensor

    from ...compressors import LayerSpec, Variant
    from ..evaluation import CandidateModel
    from ..problem import Problem

_BATCH = 32
"""Samples of a step, at most. A fifth of the batches is held out, so there are at least five batches where there are
five samples."""


class BlockRepair:
    """Reconstructs the blocks of one problem's assignments.

    Raises `TaskError` where the calibration split has fewer than two samples.
    """

    def __init__(self, problem: Problem, candidate_model: CandidateModel) -> None:
        self.problem, self.candidate_model = problem, candidate_model
        self.notes: dict[tuple[tuple[str, LayerSpec], ...], list[str]] = {}
        if len(problem.splits.calibration) < 2:
            raise TaskError(
                "repair.block_reconstruction learns on some calibration samples and checks on others, so it needs two "
                f"of them, got {len(problem.splits.calibration)}; give the calibration split more"
            )

    @cached_property
    def batches(self) -> tuple[Any, ...]:
        """Calibration inputs in random order, the same for a seed."""
        import torch

        task, split = self.problem.task, self.problem.splits.calibration
        n = min(task.repair.samples, len(split))
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(task.search.seed))
        size = max(1, min(_BATCH, task.data.batch_size, n // 5))
        return tuple(inputs for inputs, _ in split.select(order[:n]).batches(size))

    @cached_property
    def _digest(self) -> str:
        from ...compressors import model_digest

        return model_digest(self.problem.context.model)

    def reconstruct(
        self, assignment: Mapping[str, LayerSpec], variants: Mapping[str, Variant]
    ) -> tuple[Mapping[str, Variant], Mapping[str, Tensor]]:
        """(variants with other codes, biases and statistics that belong to them); those of the trial where the
        reconstruction is no nearer to the original. The model must hold its own numbers."""
        from ...compressors import reconstruct
        from ...compressors.repair import reconstructed, reconstruction_key

        context, seed = self.problem.context, self.problem.task.search.seed
        values = self.candidate_model.export_values(assignment)
        if not variants:
            return variants, values
        key = reconstruction_key(
            self._digest, assignment, variants, self.batches, values=values,
            calibration_digest=context.calibration.digest, divergence=context.divergence, seed=seed,
            class_axis=context.kl_axis, scales=context.distance.scales,
        )  # fmt: skip
        found, kept, notes = reconstructed(
            context.store / "blocks", key, variants,
            lambda: reconstruct(
                self.candidate_model.layers.resident, assignment, variants, self.batches, values=values,
                divergence=context.divergence, class_axis=context.kl_axis, scales=context.distance.scales,
                mask=context.split.mask, seed=seed,
            ),
        )  # fmt: skip
        self.notes[_key(assignment)] = notes
        return found, {} if kept else values

    def describe(self, assignment: Mapping[str, LayerSpec]) -> list[str]:
        """Notes on an assignment that was reconstructed; empty for any other."""
        return self.notes.get(_key(assignment), [])


def _key(assignment: Mapping[str, LayerSpec]) -> tuple[tuple[str, LayerSpec], ...]:
    return tuple(sorted(assignment.items(), key=lambda item: item[0]))
