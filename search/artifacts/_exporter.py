"""Export of assignments: the model files of a format, and the same compressed model in PyTorch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...compressors import LayerSpec
from ...evaluators.runtimes import STRUCTURE_FILE
from ..evaluation import CandidateModel, structure_bytes, structure_text
from ..problem import Problem
from ..task import runtime_options
from ..values import layers_of, structure_of
from ._block_repair import BlockRepair
from ._formats import check_structure, runtime_for

if TYPE_CHECKING:
    from torch import nn

    from ...compressors import Anatomy, Variant
    from ...evaluators import Reference
    from ...evaluators.runtimes import RuntimeOptions


class Exporter:
    """Exports assignments of one problem. It holds the resident model, which it changes for the length of a call."""

    def __init__(self, problem: Problem, *, options: Mapping[str, Any] | None = None) -> None:
        """Hold a problem.

        options  of the runtime's sessions by name, instead of those of the task and its profile
        """
        self.problem, self._options = problem, options
        self.candidate_model = CandidateModel(problem.context)
        self.blocks = (
            BlockRepair(problem, self.candidate_model) if problem.context.repair.block_reconstruction else None
        )

    @cached_property
    def reference(self) -> Reference:
        """Outputs of the original on the report split. Ask for them first while the model holds its own weights."""
        from ...evaluators import reference_outputs

        problem = self.problem
        return reference_outputs(problem.context.model, problem.report, problem.context.batch_size)

    @cached_property
    def split_facts(self) -> dict[str, dict[str, Any]]:
        """Digest and length of every split, for manifests."""
        return self.problem.splits.facts()

    def options(self, format: str) -> RuntimeOptions | None:
        """Options that files of a format are loaded with; None for a format or a runtime without options."""
        from ...evaluators.runtimes import OPTIONS, options_from
        from ...evaluators.runtimes.exports import EXPORTS

        runtime = runtime_for(format, self.problem.task)
        if runtime is None or format in EXPORTS:
            return None
        if self._options is not None and runtime in OPTIONS:
            return options_from(runtime, self._options)
        return runtime_options(self.problem.task, [one.profile for one in self.problem.devices], runtime)

    def export(
        self,
        assignment: Mapping[str, LayerSpec],
        format: str,
        folder: Path,
        *,
        entropy: bool = False,
        repair: bool = True,
    ) -> Path:
        """Write the model files of a format into the (new) folder; gives the main file.

        entropy  code the streams of the stored model; for the format "paredown" alone
        repair   False: without the repairs, which take a pass over the data; for a trial of the export
        """
        from ...compressors import save_model
        from ...evaluators.runtimes import export_model

        check_structure(format, structure_of(assignment))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        context = self.problem.context
        try:
            remaining = self.repaired(assignment) if repair else nullcontext(self.remaining_model(assignment))
            with remaining as (model, plain, variants, anatomy):
                main = export_model(
                    format, model, plain, variants, context.calibration, self.problem.calibration_inputs, folder,
                    anatomy=anatomy, runtime=runtime_for(format, self.problem.task), options=self.options(format),
                )  # fmt: skip
                if entropy:
                    save_model(main, model, plain, variants, context.calibration, entropy=True)
            if structure_of(assignment):
                text = structure_text(self.candidate_model.pruned_models.build(assignment).removal)
                (folder / STRUCTURE_FILE).write_text(text, encoding="utf-8")
            return main
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # no half of an artifact is left
            raise

    def stored_bytes(self, assignment: Mapping[str, LayerSpec], folder: Path) -> int:
        """Length of the stored model in bytes, found by writing it into `folder` and removing it again."""
        from ...compressors import save_model

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "stored.safetensors"
        try:
            with self.repaired(assignment) as (model, plain, variants, _):
                save_model(path, model, plain, variants, self.problem.context.calibration)
            removed = structure_of(assignment)
            extra = structure_bytes(self.candidate_model.pruned_models.build(assignment).removal) if removed else 0
            return path.stat().st_size + extra
        finally:
            path.unlink(missing_ok=True)

    def remaining_model(
        self, assignment: Mapping[str, LayerSpec]
    ) -> tuple[nn.Module, Mapping[str, LayerSpec], Mapping[str, Variant], Anatomy]:
        """The model without the removed structure: (model, fqn -> spec, fqn -> variant, anatomy)."""
        context = self.problem.context
        if not structure_of(assignment):
            plain = layers_of(assignment)
            return context.model, plain, self.candidate_model.layers.variants(plain), context.anatomy
        cut = self.candidate_model.pruned_models.build(assignment)
        return self.candidate_model.pruned_models.model(cut.removal), cut.assignment, cut.variants, cut.anatomy

    @contextmanager
    def repaired(
        self, assignment: Mapping[str, LayerSpec]
    ) -> Iterator[tuple[nn.Module, Mapping[str, LayerSpec], Mapping[str, Variant], Anatomy]]:
        """`remaining_model`, with the repaired biases, statistics and codes in place until the block ends."""
        from ...compressors import installed

        remaining = self.remaining_model(assignment)
        if structure_of(assignment):
            norms = self.problem.context.repair.batch_norm in ("finalists", "trials")
            with self.candidate_model.pruned_models.repaired(assignment, batch_norm=norms):
                yield remaining
            return
        model, plain, variants, anatomy = remaining
        if self.blocks is not None:
            variants, values = self.blocks.reconstruct(plain, variants)
            with installed(model, values):
                yield model, plain, variants, anatomy
            return
        with self.candidate_model.repaired(plain):
            yield remaining

    def describe_repairs(self, assignment: Mapping[str, LayerSpec]) -> list[str]:
        """Notes on the block reconstruction of an assignment that was exported."""
        return [] if self.blocks is None else self.blocks.describe(layers_of(assignment))

    @contextmanager
    def as_compressed(
        self, assignment: Mapping[str, LayerSpec]
    ) -> Iterator[tuple[nn.Module, Mapping[str, LayerSpec], Anatomy]]:
        """The compressed model in PyTorch, with repairs and quantizers: (model, fqn -> spec, anatomy)."""
        from ...compressors import CompressedModel

        with self.repaired(assignment) as (remaining, plain, variants, anatomy):
            resident = CompressedModel(remaining, anatomy, self.problem.context.calibration)
            with resident.apply(plain, variants) as model:
                yield model, plain, anatomy
