"""The end of a search: the chosen points are exported, loaded in a fresh process, and measured there.

The report split judges them, which nothing before has seen.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..._command import command
from ...compressors import LayerSpec
from ...errors import ParedownError
from ...evaluators import Measurement
from ..artifacts import (
    REFERENCE,
    ExportedModel,
    Exporter,
    Loaded,
    artifact_format,
    measure_artifact,
    measure_peak_memory,
    most_at_once,
    run_fresh,
    runtime_for,
    write_artifact,
)
from ..devices import describe_latency_mismatch
from ..front import pairs_to_compare, selection_of, selections_of
from ..values import MEMORY, Completed, LeastGain, not_measured, reason
from ._clock import Clock

if TYPE_CHECKING:
    from ...evaluators.prediction import LatencyTable
    from ..problem import Problem
    from ..run import Recorder, State, StoredRun
    from ..task import Task


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VerifyInputs:
    """Everything that the verification uses.

    run       run whose points are verified; their artifacts go into its folder
    problem   problem of the run's task
    recorder  recorder of the run
    clock     clock of the search; a stop that was asked for ends the verification
    latency   measurements that latencies were predicted from; None where they were not
    """

    run: StoredRun
    problem: Problem
    recorder: Recorder
    clock: Clock
    latency: LatencyTable | None = None

    @property
    def task(self) -> Task:
        """Task of the run."""
        return self.problem.task

    @property
    def state(self) -> State:
        """State of the run."""
        return self.recorder.state

    def assignment(self, trial: Completed) -> dict[str, LayerSpec]:
        """fqn -> spec of a trial; the original leaves every layer alone."""
        return {} if trial.kind == "original" else self.problem.space.assignment(trial.candidate)


MeasureMemory: TypeAlias = Callable[..., dict[str, Measurement]]
"""A function like `measure_peak_memory`."""


def verify_points(inputs: VerifyInputs, *, measure_memory: MeasureMemory = measure_peak_memory) -> None:
    """Verify the chosen points, the uniform baselines beside them and the original; the ledger gets one record for
    each.

    measure_memory  measures the peak memory of an artifact, where the task asks for memory
    Raises `ParedownError` where the original itself cannot be verified.
    """
    run, state = inputs.run, inputs.state
    chosen = selection_of(run)
    if chosen.original is None:
        return
    members = [chosen.original]
    for each in selections_of(run):  # a point may be chosen for one device alone
        members += [trial for trial in (*each.uniform, *each.mixed) if trial not in members]
    # a point that failed in an earlier session is verified again
    todo = [t for t in members if t.number not in state.verified or state.verified[t.number].reason is not None]
    if todo:
        _measure(inputs, chosen.original, todo, measure_memory)
    _compare(inputs)
    original = state.verified[chosen.original.number]
    if original.reason is not None:
        raise ParedownError(
            f"the original itself could not be verified on {inputs.task.hardware.runtime}: {original.reason}; "
            f"the trials are kept, and `{command('resume', run.path)}` tries again"
        )
    modelled, measured = chosen.original.metrics.get("latency_ms"), original.metrics.get("latency_ms")
    if modelled and measured and (line := describe_latency_mismatch(inputs.problem.profile, modelled, measured)):
        inputs.recorder.note(line)


def _measure(
    inputs: VerifyInputs, original: Completed, todo: Sequence[Completed], measure_memory: MeasureMemory
) -> None:
    exporter = Exporter(inputs.problem)
    exported = _export_all(inputs, exporter, [original, *(t for t in todo if t is not original)])
    artifacts = {_key(trial, original): model.main for trial, model in exported}
    folder = inputs.run.path / "verified" / ".fresh"

    def watch(n_done: int) -> None:
        inputs.recorder.say("verify", done=n_seen + n_done, total=len(artifacts))
        inputs.clock.stop_if_asked()

    n_seen = 0
    at_once = most_at_once(inputs.problem)
    for start in range(0, len(exported), at_once):
        n_seen, some = start, exported[start : start + at_once]
        found = run_fresh(
            inputs.problem, artifacts, runtime=inputs.task.hardware.runtime, folder=folder, watch=watch,
            only=[_key(trial, original) for trial, _ in some],
        )  # fmt: skip
        for n, (trial, model) in enumerate(some, start):
            inputs.recorder.say("report", done=n, total=len(exported))
            if trial in todo:
                _record_point(inputs, exporter, trial, model, found[_key(trial, original)], measure_memory)
        shutil.rmtree(folder, ignore_errors=True)


def _format(inputs: VerifyInputs) -> str:
    return artifact_format(inputs.task, given=inputs.problem.model_source is None)


def artifact_folder(inputs: VerifyInputs, number: int) -> Path:
    """Folder of a trial's artifact."""
    return inputs.run.path / "verified" / f"t{number}"


def _key(trial: Completed, original: Completed) -> str:
    return REFERENCE if trial.number == original.number else f"t{trial.number}"


def _export_all(
    inputs: VerifyInputs, exporter: Exporter, trials: Sequence[Completed]
) -> list[tuple[Completed, ExportedModel]]:
    """Export the trials; one that cannot be exported is recorded with its reason, and the others go on."""
    task, format = inputs.task, _format(inputs)
    runtime = runtime_for(format, task) or task.hardware.runtime
    exported = []
    for n, trial in enumerate(trials):
        inputs.recorder.say("export", done=n, total=len(trials))
        inputs.clock.stop_if_asked()
        try:
            assignment, folder = inputs.assignment(trial), artifact_folder(inputs, trial.number)
            main = exporter.export(assignment, format, folder)
            model = ExportedModel(folder=folder, main=main, assignment=assignment, format=format, runtime=runtime)
            exported.append((trial, model))
            for line in exporter.describe_repairs(assignment):
                inputs.recorder.note(f"t{trial.number}: {line}")
        except Exception as exception:  # whatever an exporter raises is this point's reason
            inputs.recorder.append(_record(trial, {}, (), f"export failed: {reason(exception)}"))
    return exported


def _record_point(
    inputs: VerifyInputs,
    exporter: Exporter,
    trial: Completed,
    model: ExportedModel,
    loaded: Loaded,
    measure_memory: MeasureMemory,
) -> None:
    """Measure a point from the results of the fresh process, write its artifact's manifest, and record it."""
    try:
        measured = measure_artifact(
            exporter, model, loaded, scratch=model.folder.parent,
            must_agree=trial.kind != "original",  # a mismatch of the original is the runtime's own
        )  # fmt: skip
        if not measured.ran:
            raise ParedownError(measured.reason)
        if measured.reason is not None:
            inputs.recorder.append(_record(trial, {}, (), measured.reason))
            return
        metrics = measured.metrics
        metrics |= _predicted_latency(inputs, model.assignment, loaded)
        metrics |= _peak_memory(inputs, model, measure_memory)
        metrics |= measured.sizes
    except Exception as exception:  # a metric of the user's may raise anything; the point is then not verified
        inputs.recorder.append(_record(trial, {}, (), reason(exception)))
        return
    write_artifact(
        model, exporter, claims={**not_measured(trial.metrics), **metrics}, point=f"t{trial.number}",
        facts=measured.facts, agreement=measured.parity_text,
    )  # fmt: skip
    inputs.recorder.append(_record(trial, metrics, measured.scores, None, measured.parity_text))


def _peak_memory(inputs: VerifyInputs, model: ExportedModel, measure_memory: MeasureMemory) -> dict[str, Measurement]:
    """Peak memory where the task asks for memory. A point is kept where it cannot be measured."""
    if not any(name in inputs.problem.devices[0].names for name in MEMORY):
        return {}
    try:
        return measure_memory(model.main, model.runtime, inputs.problem.report, threads=inputs.task.hardware.threads)
    except ParedownError as error:
        inputs.recorder.note(str(error))
        return {}


def _predicted_latency(
    inputs: VerifyInputs, assignment: Mapping[str, LayerSpec], loaded: Loaded
) -> dict[str, Measurement]:
    """The predicted latency, to stand beside the measured one. It scales the original's latency of this very process,
    because machines drift from one session to the next."""
    from ...evaluators import LatencySamples
    from ...evaluators.prediction import forms_of

    if inputs.latency is None or not loaded.reference_ms:
        return {}
    original_ms = LatencySamples(loaded.reference_ms).percentile(10)
    forms = forms_of(inputs.problem.anatomy, assignment)
    return {"latency_predicted_ms": inputs.latency.predict(forms, original_ms=original_ms)}


def _compare(inputs: VerifyInputs) -> None:
    """Make the paired tests that the judgement of the points needs, on the same samples of the report split."""
    import torch

    from ...evaluators import paired_test

    state, metric = inputs.state, inputs.problem.context.metric
    least = LeastGain.of_metric(metric.range, inputs.task.search.least_gain)
    if state.least_gain != least:
        inputs.recorder.append({"type": "least_gain", **dataclasses.asdict(least)})
    for one, other in pairs_to_compare(inputs.run):
        if (one, other) in state.verdicts:
            continue
        a, b = (torch.tensor(state.verified[n].scores, dtype=torch.float64) for n in (one, other))
        result = paired_test(a, b, metric, seed=inputs.task.search.seed)
        inputs.recorder.append({"type": "verdict", "number": one, "rival": other, **dataclasses.asdict(result)})


def _record(
    trial: Completed, metrics: Mapping[str, Measurement], scores: Sequence[Any], why: str | None, agreement: str = ""
) -> dict[str, Any]:
    return {
        "type": "verified",
        "number": trial.number,
        "metrics": {name: m.to_dict(samples=name == "latency_ms") for name, m in metrics.items()},
        "scores": list(scores),
        "reason": why,
        "agreement": agreement,
    }
