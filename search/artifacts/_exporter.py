"""Makes artifacts of assignments, has them run in a fresh process, and judges what was seen there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...compressors import LayerSpec
from ...errors import InputError, ParedownError
from ...evaluators import Measurement
from ...evaluators.runtimes import STRUCTURE_FILE
from ..evaluation import CandidateModel, structure_bytes, structure_text
from ..problem import Problem, judge
from ..space import config_of
from ..task import Plugins
from ..values import MEMORY, layers_of, structure_of
from ._block_repair import BlockRepair
from ._explain_mismatch import doubt_of, explain_mismatch
from ._fresh_process import Loaded, Watch, measure_fresh
from ._manifest import Artifact, write_manifest
from ._parity import Agreed, Agreement

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...compressors import Anatomy, Variant
    from ...evaluators import ReferenceOutputs, Split
    from ..task import Task

_THROUGHPUT_S = 0.3
"""Of runs for each batch size, at most."""


class Exporter:
    """Exports assignments and measures the artifacts in a fresh process; holds the resident model while it does."""

    def __init__(self, problem: Problem) -> None:
        from ...evaluators import ReferenceOutputs

        self.problem = problem
        self.candidate_model = CandidateModel(problem.context)
        self.blocks = (
            BlockRepair(problem, self.candidate_model) if problem.context.repair.block_reconstruction else None
        )
        self.reference = ReferenceOutputs.compute(problem.context.model, problem.report, problem.context.batch_size)

    @cached_property
    def data(self) -> dict[str, dict[str, Any]]:
        """The digests of the splits, for manifests."""
        return self.problem.splits.facts()

    def export(self, assignment: Mapping[str, LayerSpec], format: str, folder: Path, *, entropy: bool = False) -> Path:
        """Write the model file(s) of this format into the (new) folder; gives the main one.

        entropy  code the streams of the stored model; of the format "paredown" alone
        """
        from ...compressors import save_model
        from ...evaluators.runtimes import export_model

        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        context = self.problem.context
        try:
            with self.repaired(assignment) as (model, plain, variants, anatomy):
                main = export_model(
                    format, model, plain, variants, context.calibration, self.problem.calibration_inputs, folder,
                    anatomy=anatomy, runtime=runtime_for(format, self.problem.task),
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
        """Length of the stored model, by writing it."""
        from ...compressors import save_model

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "stored.safetensors"
        try:
            with self.repaired(assignment) as (model, plain, variants, _):
                save_model(path, model, plain, variants, self.problem.context.calibration)
            said = 0
            if structure_of(assignment):
                said = structure_bytes(self.candidate_model.pruned_models.build(assignment).removal)
            return path.stat().st_size + said
        finally:
            path.unlink(missing_ok=True)

    def left(
        self, assignment: Mapping[str, LayerSpec]
    ) -> tuple[nn.Module, Mapping[str, LayerSpec], Mapping[str, Variant], Anatomy]:
        """The model without what is removed, and what its layers become."""
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
        """`left`, and inside its numbers are made good."""
        from ...compressors import installed

        left = self.left(assignment)
        if structure_of(assignment):
            norms = self.problem.context.repair.batch_norm in ("finalists", "trials")
            with self.candidate_model.pruned_models.repaired(assignment, batch_norm=norms):
                yield left
            return
        model, plain, variants, anatomy = left
        if self.blocks is not None:
            variants, values = self.blocks.made_good(plain, variants)
            with installed(model, values):
                yield model, plain, variants, anatomy
            return
        with self.candidate_model.repaired(plain):
            yield left

    def remarks(self, assignment: Mapping[str, LayerSpec]) -> list[str]:
        """What the repairs of an assignment that was exported are worth saying."""
        return [] if self.blocks is None else self.blocks.remarks(layers_of(assignment))

    def measure(
        self,
        artifacts: Mapping[str, Path],
        *,
        runtime: str,
        folder: Path,
        watch: Watch | None = None,
        throughput: bool | None = None,
        is_reference: bool = False,
    ) -> dict[str, Loaded]:
        """Outputs, and latencies where the device that the search is for is this machine.

        throughput    whether samples a second are measured there too; None: where the task asks for them
        is_reference  the artifacts are for another device, and run here for their outputs only
        """
        task = self.problem.task
        if throughput is None:
            throughput = "ms_per_sample" in self.problem.devices[0].names
        return measure_fresh(
            artifacts, runtime=runtime, split=self.problem.report, batch_size=task.data.batch_size,
            threads=task.hardware.threads, folder=folder, model_source=self.problem.model_source, watch=watch,
            seconds=task.hardware.latency_seconds, plugins=self.problem.context.plugins,
            latency=self.problem.times_here and not is_reference,
            energy_batch=task.hardware.batch if "energy_mj" in self.problem.devices[0].names else 0,
            capacity={
                "batch": task.hardware.batch, "p95_limit_ms": task.hardware.throughput_p95_ms,
                "seconds": min(_THROUGHPUT_S, task.hardware.latency_seconds),
            } if throughput else None,
        )  # fmt: skip

    def judge(self, found: Loaded) -> tuple[dict[str, Measurement], tuple[float, ...]]:
        """Metrics of a loaded artifact on the report split, and the per-sample scores. Raises what a metric raises."""
        return judge_loaded(self.problem, self.reference, found)

    def agreed(
        self, assignment: Mapping[str, LayerSpec], outputs: Tensor | None, main: Path, *, runtime: str
    ) -> Agreed:
        """How far these outputs of an artifact are from what PyTorch computes on the report split with the same weights
        and quantizers.

        main, runtime  of the artifact, which is loaded once more where its kernels are to be named; "" names none
        Raises `ParedownError` where there are none, or they have another shape.
        """
        with self.as_compressed(assignment) as (model, plain, anatomy):
            expected = self.expected(model)
            if outputs is None:
                raise ParedownError("the fresh process gave no outputs")
            if outputs.shape != expected.shape:
                raise ParedownError(
                    f"the export's outputs have shape {tuple(outputs.shape)}, not {tuple(expected.shape)}"
                )
            found = Agreement.of(outputs, expected)
            integer = any(spec.changes_activation for spec in plain.values())
            kept, text = found.verdict(integer=integer)
            if integer and not kept:
                report, batch = self.problem.report, self.problem.context.batch_size
                why = explain_mismatch(main, runtime, anatomy, plain, report, doubt_of(model, report, batch, expected))
                text = f"{text}. Why: {why}"
        metrics = found.metrics(self.problem.report.name)
        return Agreed(kept=kept, broken=not kept and not integer, text=text, metrics=metrics)

    @contextmanager
    def as_compressed(
        self, assignment: Mapping[str, LayerSpec]
    ) -> Iterator[tuple[nn.Module, Mapping[str, LayerSpec], Anatomy]]:
        """The resident model as it is with this assignment, in PyTorch, what its layers got, and its anatomy."""
        from ...compressors import CompressedModel

        with self.repaired(assignment) as (left, plain, variants, anatomy):
            resident = CompressedModel(left, anatomy, self.problem.context.calibration)
            with resident.apply(plain, variants) as model:
                yield model, plain, anatomy

    def expected(self, model: nn.Module) -> Tensor:
        """Its outputs on the report split."""
        from ...evaluators import ReferenceOutputs

        return ReferenceOutputs.compute(model, self.problem.report, self.problem.context.batch_size).outputs

    def peak_memory(self, main: Path) -> dict[str, Measurement]:
        """`peak_memory_bytes` of a session at batch 1, where the task asks for memory. Raises `ParedownError` where it
        cannot be measured."""
        if any(name in self.problem.devices[0].names for name in MEMORY):
            hardware = self.problem.task.hardware
            return peak_memory_of(main, hardware.runtime, self.problem.report, threads=hardware.threads)
        return {}


def peak_memory_of(main: Path, runtime: str, split: Split, *, threads: int) -> dict[str, Measurement]:
    """In a process of its own. Empty for a runtime whose sessions need the user's code."""
    from ...evaluators.latency import peak_memory

    if runtime not in ("onnxruntime", "openvino"):
        return {}
    return {"peak_memory_bytes": peak_memory(main, runtime, split.take(1).inputs, threads=threads)}


def judge_loaded(
    problem: Problem, reference: ReferenceOutputs, found: Loaded
) -> tuple[dict[str, Measurement], tuple[float, ...]]:
    """Quality and divergence from the outputs that the fresh process saw, and the latencies that it took."""
    from ...evaluators import Scores, divergence_per_sample, evaluate_outputs

    context, split, outputs = problem.context, problem.report, found.outputs
    if outputs is None:
        raise ParedownError(found.reason or "the fresh process gave no outputs")
    if outputs.shape != reference.outputs.shape:
        raise ParedownError(
            f"the artifact's outputs have shape {tuple(outputs.shape)}, the original's {tuple(reference.outputs.shape)}"
        )
    scores = evaluate_outputs(context.metric, split, outputs, reference)
    apart = divergence_per_sample(outputs, reference.outputs, context.divergence, variance=reference.variance)
    metrics = judge(context, Scores(metric=scores, divergence=apart), split=split.name)
    metrics |= latencies(found, problem.task.hardware.grid_g_per_kwh)
    return metrics, tuple(round(float(s), 6) for s in scores)


def latencies(found: Loaded, grid_g_per_kwh: float | None) -> dict[str, Measurement]:
    """p10 and the other percentiles with their intervals, and the speed-up over the original in the same runtime, as
    `compare` finds it; energy and throughput where they were measured. Carbon stays modelled: no counter reads it."""
    from ...evaluators import LatencySamples, Measurement
    from ...evaluators.energy import co2_measurement
    from ...evaluators.latency import compare

    if not found.latency_ms:
        return {}
    mine = LatencySamples(found.latency_ms)
    metrics = {"latency_ms": mine.measurement()}
    metrics |= {f"latency_{name}_ms": percentile for name, percentile in mine.measurements().items()}
    if found.energy_mj is not None:
        metrics["energy_mj"] = energy = Measurement.from_dict(found.energy_mj)
        if grid_g_per_kwh is not None:
            metrics["co2_g_per_million"] = co2_measurement(energy, grid_g_per_kwh)
    metrics |= {name: Measurement.from_dict(measured) for name, measured in found.capacity.items()}
    if found.reference_ms:
        found_apart = compare(LatencySamples(found.reference_ms), mine)
        metrics["speedup"] = Measurement(
            value=found_apart.ratio, low=found_apart.low, high=found_apart.high, unit="x", n=len(mine)
        )
    if found.eager_ms:
        metrics["eager_ms"] = LatencySamples(found.eager_ms).measurement()
    if "aa_floor" in found.facts:
        metrics["aa_floor"] = Measurement(value=float(found.facts["aa_floor"]), unit="share")
    return metrics


def runtime_format(runtime: str) -> str:
    from ...evaluators.runtimes import get_runtime

    return get_runtime(runtime).format


def artifact_format(task: Task, *, given: bool) -> str:
    """What a point is exported to: the format of the task's runtime.

    given  whether the model was handed in from Python. A fresh process could not build what bare weights belong to, so
           such a model is exported as a whole program instead.
    """
    format = runtime_format(task.hardware.runtime)
    return "pt2" if given and format == "paredown" else format


def is_for_elsewhere(format: str) -> bool:
    """Whether it is a format for devices and tools that are not here: what is timed here says nothing of them."""
    from ...evaluators.runtimes.exports import EXPORTS

    return format in EXPORTS


def needs_factory(format: str) -> bool:
    """Whether the format holds weights only, so that a fresh process has to build the model."""
    from ...evaluators.runtimes.exports import EXPORTS

    return format == "paredown" or (format in EXPORTS and EXPORTS[format].needs_factory)


def runtime_for(format: str, task: Task) -> str | None:
    """The runtime that writes and loads this format: the task's own if it is its format, else the first that has it.

    None for a format that nothing here can run. Raises `InputError` for one that no runtime has, none of the task's
    plugins either.
    """
    from ...evaluators.runtimes import get_runtime, list_formats, list_runtimes
    from ...evaluators.runtimes.exports import EXPORTS

    Plugins.of(task).load()
    if format == "pt2":
        return "torch"
    if format in EXPORTS:
        return EXPORTS[format].checked_by
    names = [name for name in (task.hardware.runtime, *list_runtimes()) if get_runtime(name).format == format]
    if not names:
        raise InputError(f"format must be one of {', '.join((*list_formats(), 'config'))}, got {format!r}")
    return names[0]


def write_artifact(
    folder: Path,
    *,
    main: Path,
    exporter: Exporter,
    assignment: Mapping[str, LayerSpec],
    claims: Mapping[str, Measurement],
    point: str,
    format: str,
    facts: Mapping[str, Any],
    agreement: str = "",
    entropy: bool = False,
) -> Artifact:
    """Config and manifest beside the model file(s) that are already there."""
    from ..._version import __version__

    problem, task = exporter.problem, exporter.problem.task
    runtime = runtime_for(format, task)
    assert runtime is not None, "what nothing here can run has no claims"
    artifact = Artifact(
        folder=folder,
        format=format,
        runtime=runtime,
        main=main.relative_to(folder).as_posix(),
        model=problem.model_digest,
        point=point,
        config=config_of(assignment),
        task=_carried(task),
        data=exporter.data,
        claims=claims,
        agreement=agreement,
        storage={"entropy": entropy},
        machine=_machine() | dict(facts),
    )
    write_manifest(artifact, version=__version__)
    return artifact


def _carried(task: Task) -> dict[str, Any]:
    """The task for a manifest: what lies in the task's folder is named from there, so that the artifact is the same
    wherever that folder is."""
    data = task.to_dict()
    start = f"{task.base_dir.as_posix()}/"

    def shortened(name: Any) -> Any:
        if isinstance(name, list):
            return [shortened(each) for each in name]
        return name.removeprefix(start) if isinstance(name, str) else name

    places = {
        "model": ("factory", "weights", "huggingface", "export"), "data": ("factory",), "quality": ("metric",),
        "hardware": ("profile", "latency_table"),
    }  # fmt: skip
    for section, keys in places.items():
        if data[section] is not None:
            data[section] |= {key: shortened(data[section][key]) for key in keys}
    return data | {"plugins": shortened(data["plugins"])}


def _machine() -> dict[str, Any]:
    """Where the claims were measured; without paths, for an artifact travels."""
    from ..task import environment

    return {name: value for name, value in environment().items() if name != "executable"}
