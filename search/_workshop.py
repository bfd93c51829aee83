"""Makes artifacts of assignments, has them run in a fresh process, and judges what was seen there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..compressors import LayerSpec
from ..errors import InputError, ParedownError
from ..evaluators import Measurement
from ..evaluators.runtimes import STRUCTURE_FILE
from ._artifact import Artifact, write_manifest
from ._bench import Worker, judge
from ._config import config_of
from ._fresh import Loaded, Watch, measure_fresh
from ._plugins import Plugins
from ._prepare import Prepared
from ._structural_costs import structure_bytes, structure_text
from ._structure import layers_of, structure_of

if TYPE_CHECKING:
    from torch import nn

    from ..compressors import Anatomy, Variant
    from ..evaluators import ReferenceOutputs
    from ._task import Task


class Workshop:
    """Exports assignments and measures the artifacts in a fresh process; holds the resident model while it does."""

    def __init__(self, prepared: Prepared) -> None:
        from ..evaluators import ReferenceOutputs

        self.prepared = prepared
        self.worker = Worker(prepared.bench)
        self.reference = ReferenceOutputs.compute(prepared.bench.model, prepared.report, prepared.bench.batch_size)

    def export(self, assignment: Mapping[str, LayerSpec], format: str, folder: Path) -> Path:
        """Write the model file(s) of this format into the (new) folder; gives the main one."""
        from ..evaluators.runtimes import export_model

        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        bench = self.prepared.bench
        try:
            model, plain, variants, anatomy = self.left(assignment)
            main = export_model(
                format, model, plain, variants, bench.calibration, self.prepared.calibration_inputs, folder,
                anatomy=anatomy, runtime=runtime_for(format, self.prepared.task),
            )  # fmt: skip
            if structure_of(assignment):
                text = structure_text(self.worker.cutter.cut(assignment).removal)
                (folder / STRUCTURE_FILE).write_text(text, encoding="utf-8")
            return main
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # no half of an artifact is left
            raise

    def stored_bytes(self, assignment: Mapping[str, LayerSpec], folder: Path) -> int:
        """Length of the stored model, by writing it."""
        from ..compressors import save_model

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "stored.safetensors"
        try:
            model, plain, variants, _ = self.left(assignment)
            save_model(path, model, plain, variants, self.prepared.bench.calibration)
            said = structure_bytes(self.worker.cutter.cut(assignment).removal) if structure_of(assignment) else 0
            return path.stat().st_size + said
        finally:
            path.unlink(missing_ok=True)

    def left(
        self, assignment: Mapping[str, LayerSpec]
    ) -> tuple[nn.Module, Mapping[str, LayerSpec], Mapping[str, Variant], Anatomy]:
        """The model without what is removed, and what its layers become."""
        bench = self.prepared.bench
        if not structure_of(assignment):
            plain = layers_of(assignment)
            return bench.model, plain, self.worker.variants(plain), bench.anatomy
        cut = self.worker.cutter.cut(assignment)
        return self.worker.cutter.model(cut.removal), cut.assignment, cut.variants, cut.anatomy

    def measure(
        self, artifacts: Mapping[str, Path], *, runtime: str, folder: Path, watch: Watch | None = None
    ) -> dict[str, Loaded]:
        """Outputs, and latencies where the device that the search is for is this machine."""
        task = self.prepared.task
        return measure_fresh(
            artifacts, runtime=runtime, split=self.prepared.report, batch_size=task.data.batch_size,
            threads=task.hardware.threads, folder=folder, model_source=self.prepared.model_source, watch=watch,
            seconds=task.hardware.latency_seconds, plugins=self.prepared.bench.plugins,
            latency=self.prepared.times_here,
            energy_batch=task.hardware.batch if "energy_mj" in self.prepared.devices[0].names else 0,
        )  # fmt: skip

    def judge(self, found: Loaded) -> tuple[dict[str, Measurement], tuple[float, ...]]:
        """Metrics of a loaded artifact on the report split, and the per-sample scores. Raises what a metric raises."""
        return judge_loaded(self.prepared, self.reference, found)


def judge_loaded(
    prepared: Prepared, reference: ReferenceOutputs, found: Loaded
) -> tuple[dict[str, Measurement], tuple[float, ...]]:
    """Quality and divergence from the outputs that the fresh process saw, and the latencies that it took."""
    from ..evaluators import Scores, divergence_per_sample, evaluate_outputs

    bench, split, outputs = prepared.bench, prepared.report, found.outputs
    if outputs is None:
        raise ParedownError(found.reason or "the fresh process gave no outputs")
    if outputs.shape != reference.outputs.shape:
        raise ParedownError(
            f"the artifact's outputs have shape {tuple(outputs.shape)}, the original's {tuple(reference.outputs.shape)}"
        )
    scores = evaluate_outputs(bench.metric, split, outputs, reference)
    apart = divergence_per_sample(outputs, reference.outputs, bench.divergence, variance=reference.variance)
    metrics = judge(bench, Scores(metric=scores, divergence=apart), split=split.name)
    return {**metrics, **_latencies(found)}, tuple(round(float(s), 6) for s in scores)


def _latencies(found: Loaded) -> dict[str, Measurement]:
    """p10 with its interval, the other percentiles, and the speed-up over the original in the same runtime; the energy
    where it was measured."""
    from ..evaluators import LatencySamples, Measurement

    if not found.latency_ms:
        return {}
    mine = LatencySamples(found.latency_ms)
    latency = mine.measurement()
    metrics = {"latency_ms": latency}
    for name, value in mine.percentiles().items():
        metrics[f"latency_{name}_ms"] = Measurement(value=value, unit="ms", n=len(mine))
    if found.energy_mj is not None:
        metrics["energy_mj"] = Measurement.from_dict(found.energy_mj)
    if found.reference_ms:
        theirs = LatencySamples(found.reference_ms).measurement()
        metrics["speedup"] = Measurement(value=theirs.value / latency.value, unit="x", n=len(mine))
    if found.eager_ms:
        metrics["eager_ms"] = LatencySamples(found.eager_ms).measurement()
    if "aa_floor" in found.facts:
        metrics["aa_floor"] = Measurement(value=float(found.facts["aa_floor"]), unit="share")
    return metrics


def runtime_format(runtime: str) -> str:
    from ..evaluators.runtimes import get_runtime

    return get_runtime(runtime).format


def artifact_format(task: Task, *, given: bool) -> str:
    """What a point is exported to: the format of the task's runtime.

    given  whether the model was handed in from Python. A fresh process could not build what bare weights belong to, so
           such a model is exported as a whole program instead.
    """
    format = runtime_format(task.hardware.runtime)
    return "pt2" if given and format == "paredown" else format


def runtime_for(format: str, task: Task) -> str:
    """The runtime that writes and loads this format: the task's own if it is its format, else the first that has it.

    Raises `InputError` for a format that no runtime has, none of the task's plugins either.
    """
    from ..evaluators.runtimes import get_runtime, list_formats, list_runtimes

    Plugins.of(task).load()
    if format == "pt2":
        return "torch"
    names = [name for name in (task.hardware.runtime, *list_runtimes()) if get_runtime(name).format == format]
    if not names:
        raise InputError(f"format must be one of {', '.join((*list_formats(), 'config'))}, got {format!r}")
    return names[0]


def write_artifact(
    folder: Path,
    *,
    main: Path,
    prepared: Prepared,
    assignment: Mapping[str, LayerSpec],
    claims: Mapping[str, Measurement],
    point: str,
    format: str,
    facts: Mapping[str, Any],
) -> Artifact:
    """Config and manifest beside the model file(s) that are already there."""
    from .. import __version__

    task = prepared.task
    artifact = Artifact(
        folder=folder,
        format=format,
        runtime=runtime_for(format, task),
        main=main.relative_to(folder).as_posix(),
        model=prepared.model_digest,
        point=point,
        config=config_of(assignment),
        task=task.to_dict(),
        base_dir=task.base_dir,
        claims=claims,
        machine=_machine() | dict(facts),
    )
    write_manifest(artifact, version=__version__)
    return artifact


def _machine() -> dict[str, Any]:
    """Where the claims were measured; without paths, for an artifact travels."""
    from ._environment import environment

    return {name: value for name, value in environment().items() if name != "executable"}
