"""The end of a search: export what was chosen, load it in a fresh process, and measure it there.

What each point is worth is read off the report split, which nothing before has seen.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...compressors import LayerSpec
from ...errors import ParedownError
from ...evaluators import Measurement
from ..artifacts import REFERENCE, Exporter, Loaded, artifact_format, write_artifact
from ..devices import describe_latency_mismatch
from ..front import selection_of, selections_of
from ..values import Completed, not_measured, reason
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


def export_original(inputs: VerifyInputs) -> None:
    """Before anything is searched: a model that this runtime cannot have is better known now than after the trials.

    Raises what the exporter raises; `MissingExtra` says how to get a runtime that is not installed.
    """
    folder = _folder(inputs, 0)
    if not folder.exists():
        with inputs.recorder.watch.charge("verification"):
            Exporter(inputs.problem).export({}, _format(inputs), folder)


def verify_points(inputs: VerifyInputs) -> None:
    """Verify the chosen points, the uniform baselines beside them and the original; the ledger gets one record for
    each."""
    run, state = inputs.run, inputs.state
    chosen = selection_of(run)
    if chosen.original is None:
        return
    members = [chosen.original]
    for each in selections_of(run):  # a point may be wanted for one device alone
        members += [trial for trial in (*each.uniform, *each.mixed) if trial not in members]
    # what failed in an earlier sitting gets another chance
    todo = [t for t in members if t.number not in state.verified or state.verified[t.number].reason is not None]
    if todo:
        _measure(inputs, chosen.original, todo)
    _compare(inputs)
    original = state.verified[chosen.original.number]
    if original.reason is not None:
        raise ParedownError(
            f"the original itself could not be verified on {inputs.task.hardware.runtime}: {original.reason}; "
            f"the trials are kept, and `paredown resume {run.path}` tries again"
        )
    said, took = chosen.original.metrics.get("latency_ms"), original.metrics.get("latency_ms")
    if said and took and (line := describe_latency_mismatch(inputs.problem.profile, said, took)):
        inputs.recorder.note(line)


def _measure(inputs: VerifyInputs, original: Completed, todo: Sequence[Completed]) -> None:
    exporter = Exporter(inputs.problem)
    mains = _export_all(inputs, exporter, [original, *(t for t in todo if t is not original)])
    artifacts = {_key(trial, original): main for trial, main in mains}
    folder = inputs.run.path / "verified" / ".fresh"

    def watch(n_done: int) -> None:
        inputs.recorder.say("verify", done=n_done, total=len(artifacts))
        inputs.clock.stop_if_asked()

    found = exporter.measure(artifacts, runtime=inputs.task.hardware.runtime, folder=folder, watch=watch)
    for n, (trial, main) in enumerate(mains):
        inputs.recorder.say("report", done=n, total=len(mains))
        if trial in todo:
            _settle(inputs, exporter, trial, main, found[_key(trial, original)])
    shutil.rmtree(folder, ignore_errors=True)


def _format(inputs: VerifyInputs) -> str:
    return artifact_format(inputs.task, given=inputs.problem.model_source is None)


def _folder(inputs: VerifyInputs, number: int) -> Path:
    return inputs.run.path / "verified" / f"t{number}"


def _key(trial: Completed, original: Completed) -> str:
    return REFERENCE if trial.number == original.number else f"t{trial.number}"


def _export_all(inputs: VerifyInputs, exporter: Exporter, trials: Sequence[Completed]) -> list[tuple[Completed, Path]]:
    """One that cannot be exported is recorded with its reason; the others go on."""
    format = _format(inputs)
    mains = []
    for n, trial in enumerate(trials):
        inputs.recorder.say("export", done=n, total=len(trials))
        inputs.clock.stop_if_asked()
        try:
            assignment = inputs.assignment(trial)
            mains.append((trial, exporter.export(assignment, format, _folder(inputs, trial.number))))
            for line in exporter.remarks(assignment):
                inputs.recorder.note(f"t{trial.number}: {line}")
        except Exception as exception:  # whatever an exporter raises is this point's reason
            inputs.recorder.append(_record(trial, {}, (), f"export failed: {reason(exception)}"))
    return mains


def _settle(inputs: VerifyInputs, exporter: Exporter, trial: Completed, main: Path, found: Loaded) -> None:
    """Judge what the fresh process saw, write the artifact's manifest, and record it."""
    folder = main.parent
    assignment = inputs.assignment(trial)
    try:
        metrics, scores = exporter.judge(found)
        agreed = exporter.agreed(assignment, found.outputs, main, runtime=inputs.task.hardware.runtime)
        metrics |= agreed.metrics
        metrics |= _foreseen(inputs, assignment, found)
        metrics |= _peak_memory(inputs, exporter, main)
        metrics["bytes"] = Measurement(value=float(exporter.stored_bytes(assignment, folder.parent)), unit="B")
        metrics["file_bytes"] = Measurement(value=float(sum(f.stat().st_size for f in folder.iterdir())), unit="B")
    except Exception as exception:  # a metric of the user's may raise anything; the point is then not verified
        inputs.recorder.append(_record(trial, {}, (), reason(exception)))
        return
    if agreed.broken and trial.kind != "original":  # what is said of the original is said of the runtime
        inputs.recorder.append(
            _record(trial, {}, (), f"the export does not compute what PyTorch computes: {agreed.text}")
        )
        return
    write_artifact(
        folder, main=main, exporter=exporter, assignment=assignment,
        claims={**not_measured(trial.metrics), **metrics}, point=f"t{trial.number}",
        format=_format(inputs), facts=found.facts, agreement=agreed.text,
    )  # fmt: skip
    inputs.recorder.append(_record(trial, metrics, scores, None, agreed.text))


def _peak_memory(inputs: VerifyInputs, exporter: Exporter, main: Path) -> dict[str, Measurement]:
    """A point is none the worse for it where the memory cannot be measured."""
    try:
        return exporter.peak_memory(main)
    except ParedownError as error:
        inputs.recorder.note(str(error))
        return {}


def _foreseen(inputs: VerifyInputs, assignment: Mapping[str, LayerSpec], found: Loaded) -> dict[str, Measurement]:
    """What the latency was predicted to be, beside what it is: of the original as it was timed just now, for machines
    drift from one session to the next."""
    from ...evaluators import LatencySamples
    from ...evaluators.prediction import forms_of

    if inputs.latency is None or not found.reference_ms:
        return {}
    original_ms = LatencySamples(found.reference_ms).percentile(10)
    forms = forms_of(inputs.problem.anatomy, assignment)
    return {"latency_predicted_ms": inputs.latency.predict(forms, original_ms=original_ms)}


def _compare(inputs: VerifyInputs) -> None:
    """Each mixed point against its uniform rival, on the same samples of the report split."""
    import torch

    from ...evaluators import paired_test

    state = inputs.state
    pairs = [(trial, chosen.rivals.get(trial.number)) for chosen in selections_of(inputs.run) for trial in chosen.mixed]
    for trial, rival in pairs:
        mine = state.verified.get(trial.number)
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
        result = paired_test(a, b, inputs.problem.context.metric, seed=inputs.task.search.seed)
        inputs.recorder.append(
            {"type": "verdict", "number": mine.number, "rival": theirs.number, **dataclasses.asdict(result)}
        )


def _record(
    trial: Completed, metrics: Mapping[str, Measurement], scores: Sequence[float], why: str | None, agreement: str = ""
) -> dict[str, Any]:
    return {
        "type": "verified",
        "number": trial.number,
        "metrics": {name: m.to_dict(samples=name == "latency_ms") for name, m in metrics.items()},
        "scores": list(scores),
        "reason": why,
        "agreement": agreement,
    }
