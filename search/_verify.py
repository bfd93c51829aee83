"""The end of a search: export what was chosen, load it in a fresh process, and measure it there.

What each point is worth is read off the report split, which nothing before has seen.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..compressors import LayerSpec
from ..errors import InputError, ParedownError
from ..evaluators import Measurement
from ._artifact import Artifact, write_manifest
from ._bench import Worker, judge, reason
from ._config import config_of
from ._fresh import REFERENCE, Loaded, Watch, measure_fresh
from ._plugins import Plugins
from ._points import selection_of
from ._prepare import Prepared

if TYPE_CHECKING:
    from ..evaluators import ReferenceOutputs
    from ._sitting import Sitting
    from ._task import Task
    from ._trial import Completed


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
        return export_model(
            format, bench.model, assignment, self.worker.variants(assignment), bench.calibration,
            self.prepared.calibration_inputs, folder, anatomy=bench.anatomy,
            runtime=runtime_for(format, self.prepared.task),
        )  # fmt: skip

    def stored_bytes(self, assignment: Mapping[str, LayerSpec], folder: Path) -> int:
        """Length of the stored model, by writing it."""
        from ..compressors import save_model

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "stored.safetensors"
        bench = self.prepared.bench
        try:
            save_model(path, bench.model, assignment, self.worker.variants(assignment), bench.calibration)
            return path.stat().st_size
        finally:
            path.unlink(missing_ok=True)

    def measure(
        self, artifacts: Mapping[str, Path], *, runtime: str, folder: Path, watch: Watch | None = None
    ) -> dict[str, Loaded]:
        task = self.prepared.task
        return measure_fresh(
            artifacts, runtime=runtime, split=self.prepared.report, batch_size=task.data.batch_size,
            threads=task.hardware.threads, folder=folder, model_source=self.prepared.model_source, watch=watch,
            seconds=task.hardware.latency_seconds, plugins=self.prepared.bench.plugins,
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
    """p10 with its interval, the other percentiles, and the speed-up over the original in the same runtime."""
    from ..evaluators import LatencySamples, Measurement

    if not found.latency_ms:
        return {}
    mine = LatencySamples(found.latency_ms)
    latency = mine.measurement()
    metrics = {"latency_ms": latency}
    for name, value in mine.percentiles().items():
        metrics[f"latency_{name}_ms"] = Measurement(value=value, unit="ms", n=len(mine))
    if found.reference_ms:
        theirs = LatencySamples(found.reference_ms).measurement()
        metrics["speedup"] = Measurement(value=theirs.value / latency.value, unit="x", n=len(mine))
    if found.eager_ms:
        metrics["eager_ms"] = LatencySamples(found.eager_ms).measurement()
    if "aa_floor" in found.facts:
        metrics["aa_floor"] = Measurement(value=float(found.facts["aa_floor"]), unit="share")
    return metrics


def verify_points(sitting: Sitting) -> None:
    """Verify the chosen points, the uniform baselines beside them and the original; the ledger gets one record for
    each."""
    run, prepared, state = sitting.run, sitting.prepared, sitting.state
    chosen = selection_of(run)
    members = [*([chosen.original] if chosen.original else []), *chosen.uniform, *chosen.mixed]
    todo = [trial for trial in members if trial.number not in state.verified]
    if chosen.original is None:
        return
    if not todo:
        _compare(sitting)
        return
    runtime = prepared.task.hardware.runtime
    shop = Workshop(prepared)
    folders = _export_all(sitting, shop, [chosen.original, *(t for t in todo if t is not chosen.original)])
    artifacts = {_key(t, chosen.original): main for t, main in folders}

    def watch(n_done: int) -> None:
        sitting.recorder.say("verify", done=n_done, total=len(artifacts))
        sitting.stop_if_asked()

    found = shop.measure(artifacts, runtime=runtime, folder=run.path / "verified" / ".fresh", watch=watch)
    for trial, main in folders:
        if trial.number not in state.verified:
            _settle(sitting, shop, trial, main, found[_key(trial, chosen.original)])
    shutil.rmtree(run.path / "verified" / ".fresh", ignore_errors=True)
    _compare(sitting)


def _key(trial: Completed, original: Completed) -> str:
    return REFERENCE if trial.number == original.number else f"t{trial.number}"


def _export_all(sitting: Sitting, shop: Workshop, trials: Sequence[Completed]) -> list[tuple[Completed, Path]]:
    """One that cannot be exported is recorded with its reason; the others go on."""
    format = runtime_format(sitting.prepared.task.hardware.runtime)
    done = []
    for trial in trials:
        sitting.recorder.say("verify", done=0, total=len(trials))
        try:
            done.append(
                (
                    trial,
                    shop.export(sitting.assignment(trial), format, sitting.run.path / "verified" / f"t{trial.number}"),
                )
            )
        except Exception as exception:  # whatever an exporter raises is this point's reason
            sitting.recorder.append(_record(trial, {}, (), f"export failed: {reason(exception)}"))
    return done


def _settle(sitting: Sitting, shop: Workshop, trial: Completed, main: Path, found: Loaded) -> None:
    """Judge what the fresh process saw, write the artifact's manifest, and record it."""
    folder = main.parent
    assignment = sitting.assignment(trial)
    try:
        metrics, scores = shop.judge(found)
        metrics["bytes"] = Measurement(value=float(shop.stored_bytes(assignment, folder.parent)), unit="B")
        metrics["file_bytes"] = Measurement(value=float(sum(f.stat().st_size for f in folder.iterdir())), unit="B")
    except Exception as exception:  # a metric of the user's may raise anything; the point is then not verified
        sitting.recorder.append(_record(trial, {}, (), reason(exception)))
        return
    write_artifact(
        folder, main=main, prepared=sitting.prepared, assignment=assignment, claims=metrics, point=f"t{trial.number}",
        format=runtime_format(sitting.prepared.task.hardware.runtime), facts=found.facts,
    )  # fmt: skip
    sitting.recorder.append(_record(trial, metrics, scores, None))


def _compare(sitting: Sitting) -> None:
    """Each mixed point against its uniform rival, on the same samples of the report split."""
    import torch

    from ..evaluators import paired_test

    state, chosen = sitting.state, selection_of(sitting.run)
    for trial in chosen.mixed:
        mine, rival = state.verified.get(trial.number), chosen.rivals.get(trial.number)
        theirs = state.verified.get(rival.number) if rival is not None else None
        if (
            mine is None
            or theirs is None
            or mine.reason
            or theirs.reason
            or (mine.number, theirs.number) in state.verdicts
        ):
            continue
        a, b = (torch.tensor(found.scores, dtype=torch.float64) for found in (mine, theirs))
        result = paired_test(a, b, sitting.prepared.bench.metric, seed=sitting.task.search.seed)
        sitting.recorder.append(
            {"type": "verdict", "number": mine.number, "rival": theirs.number, **dataclasses.asdict(result)}
        )


def _record(
    trial: Completed, metrics: Mapping[str, Measurement], scores: Sequence[float], why: str | None
) -> dict[str, Any]:
    return {
        "type": "verified",
        "number": trial.number,
        "metrics": {name: m.to_dict(samples=name == "latency_ms") for name, m in metrics.items()},
        "scores": list(scores),
        "reason": why,
    }


def runtime_format(runtime: str) -> str:
    from ..evaluators.runtimes import get_runtime

    return get_runtime(runtime).format


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
