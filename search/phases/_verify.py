"""The end of a search: export what was chosen, load it in a fresh process, and measure it there.

What each point is worth is read off the report split, which nothing before has seen.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...compressors import LayerSpec
from ...errors import ParedownError
from ...evaluators import Measurement
from ..artifacts import REFERENCE, Exporter, Loaded, artifact_format, write_artifact
from ..devices import describe_latency_mismatch
from ..front import selection_of, selections_of
from ..values import Completed, not_measured, reason
from ._session import SearchSession


def export_original(session: SearchSession) -> None:
    """Before anything is searched: a model that this runtime cannot have is better known now than after the trials.

    Raises what the exporter raises; `MissingExtra` says how to get a runtime that is not installed.
    """
    folder = _folder(session, 0)
    if not folder.exists():
        with session.recorder.watch.charge("verification"):
            Exporter(session.problem).export({}, _format(session), folder)


def verify_points(session: SearchSession) -> None:
    """Verify the chosen points, the uniform baselines beside them and the original; the ledger gets one record for
    each."""
    run, state = session.run, session.state
    chosen = selection_of(run)
    if chosen.original is None:
        return
    members = [chosen.original]
    for each in selections_of(run):  # a point may be wanted for one device alone
        members += [trial for trial in (*each.uniform, *each.mixed) if trial not in members]
    # what failed in an earlier sitting gets another chance
    todo = [t for t in members if t.number not in state.verified or state.verified[t.number].reason is not None]
    if todo:
        _measure(session, chosen.original, todo)
    _compare(session)
    original = state.verified[chosen.original.number]
    if original.reason is not None:
        raise ParedownError(
            f"the original itself could not be verified on {session.task.hardware.runtime}: {original.reason}; "
            f"the trials are kept, and `paredown resume {run.path}` tries again"
        )
    said, took = chosen.original.metrics.get("latency_ms"), original.metrics.get("latency_ms")
    if said and took and (line := describe_latency_mismatch(session.problem.profile, said, took)):
        session.recorder.note(line)


def _measure(session: SearchSession, original: Completed, todo: Sequence[Completed]) -> None:
    exporter = Exporter(session.problem)
    mains = _export_all(session, exporter, [original, *(t for t in todo if t is not original)])
    artifacts = {_key(trial, original): main for trial, main in mains}
    folder = session.run.path / "verified" / ".fresh"

    def watch(n_done: int) -> None:
        session.recorder.say("verify", done=n_done, total=len(artifacts))
        session.stop_if_asked()

    found = exporter.measure(artifacts, runtime=session.task.hardware.runtime, folder=folder, watch=watch)
    for n, (trial, main) in enumerate(mains):
        session.recorder.say("report", done=n, total=len(mains))
        if trial in todo:
            _settle(session, exporter, trial, main, found[_key(trial, original)])
    shutil.rmtree(folder, ignore_errors=True)


def _format(session: SearchSession) -> str:
    return artifact_format(session.task, given=session.problem.model_source is None)


def _folder(session: SearchSession, number: int) -> Path:
    return session.run.path / "verified" / f"t{number}"


def _key(trial: Completed, original: Completed) -> str:
    return REFERENCE if trial.number == original.number else f"t{trial.number}"


def _export_all(
    session: SearchSession, exporter: Exporter, trials: Sequence[Completed]
) -> list[tuple[Completed, Path]]:
    """One that cannot be exported is recorded with its reason; the others go on."""
    format = _format(session)
    mains = []
    for n, trial in enumerate(trials):
        session.recorder.say("export", done=n, total=len(trials))
        session.stop_if_asked()
        try:
            assignment = session.assignment(trial)
            mains.append((trial, exporter.export(assignment, format, _folder(session, trial.number))))
            for line in exporter.remarks(assignment):
                session.recorder.note(f"t{trial.number}: {line}")
        except Exception as exception:  # whatever an exporter raises is this point's reason
            session.recorder.append(_record(trial, {}, (), f"export failed: {reason(exception)}"))
    return mains


def _settle(session: SearchSession, exporter: Exporter, trial: Completed, main: Path, found: Loaded) -> None:
    """Judge what the fresh process saw, write the artifact's manifest, and record it."""
    folder = main.parent
    assignment = session.assignment(trial)
    try:
        metrics, scores = exporter.judge(found)
        agreed = exporter.agreed(assignment, found.outputs, main, runtime=session.task.hardware.runtime)
        metrics |= agreed.metrics
        metrics |= _foreseen(session, assignment, found)
        metrics |= _peak_memory(session, exporter, main)
        metrics["bytes"] = Measurement(value=float(exporter.stored_bytes(assignment, folder.parent)), unit="B")
        metrics["file_bytes"] = Measurement(value=float(sum(f.stat().st_size for f in folder.iterdir())), unit="B")
    except Exception as exception:  # a metric of the user's may raise anything; the point is then not verified
        session.recorder.append(_record(trial, {}, (), reason(exception)))
        return
    if agreed.broken and trial.kind != "original":  # what is said of the original is said of the runtime
        session.recorder.append(
            _record(trial, {}, (), f"the export does not compute what PyTorch computes: {agreed.text}")
        )
        return
    write_artifact(
        folder, main=main, exporter=exporter, assignment=assignment,
        claims={**not_measured(trial.metrics), **metrics}, point=f"t{trial.number}",
        format=_format(session), facts=found.facts, agreement=agreed.text,
    )  # fmt: skip
    session.recorder.append(_record(trial, metrics, scores, None, agreed.text))


def _peak_memory(session: SearchSession, exporter: Exporter, main: Path) -> dict[str, Measurement]:
    """A point is none the worse for it where the memory cannot be measured."""
    try:
        return exporter.peak_memory(main)
    except ParedownError as error:
        session.recorder.note(str(error))
        return {}


def _foreseen(session: SearchSession, assignment: Mapping[str, LayerSpec], found: Loaded) -> dict[str, Measurement]:
    """What the latency was predicted to be, beside what it is: of the original as it was timed just now, for machines
    drift from one session to the next."""
    from ...evaluators import LatencySamples
    from ...evaluators.prediction import forms_of

    if session.latency is None or not found.reference_ms:
        return {}
    original_ms = LatencySamples(found.reference_ms).percentile(10)
    forms = forms_of(session.problem.anatomy, assignment)
    return {"latency_predicted_ms": session.latency.predict(forms, original_ms=original_ms)}


def _compare(session: SearchSession) -> None:
    """Each mixed point against its uniform rival, on the same samples of the report split."""
    import torch

    from ...evaluators import paired_test

    state = session.state
    pairs = [
        (trial, chosen.baselines.get(trial.number)) for chosen in selections_of(session.run) for trial in chosen.mixed
    ]
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
        result = paired_test(a, b, session.problem.context.metric, seed=session.task.search.seed)
        session.recorder.append(
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
