"""Checks that a search can have a result, before it spends its budget, and that it has one, at its end.

Before it the original and a few uniform settings are exported and loaded, so that what the chosen runtime cannot run is
said at once.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..._command import command
from ...compressors import LayerSpec
from ...errors import NothingVerified, ParedownError
from ..artifacts import Exporter, artifact_format, runtime_for
from ..values import Failed, is_structural, reason
from ._verify import VerifyInputs, artifact_folder

if TYPE_CHECKING:
    from ..run import StoredRun
    from ..values import Candidate

_MINUTES_TO_LOAD = ("torch-compile",)
"""Runtimes that compile when they load; their exports are written and not run."""
_REASON_SHOWN = 300


def check_exports(inputs: VerifyInputs) -> None:
    """Export and load the original and a uniform setting of each kind, and run a sample of the original.

    Kinds of settings are told apart by what they change: weights, activations, zeros, factors, structure. A session
    that goes on does not do it again.

    Raises what the exporter raises for the original (`MissingExtra` says how to get a runtime that is not installed),
    `ParedownError` where the runtime cannot run it, and `NothingVerified` where it can run none of the settings.
    """
    folder = artifact_folder(inputs, 0)
    if folder.exists():
        return
    with inputs.recorder.watch.charge("verification"):
        exporter = Exporter(inputs.problem)
        try:
            _check_original(inputs, exporter)
            _check_settings(inputs, exporter)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # the next session checks again
            raise


def check_results(run: StoredRun) -> None:
    """Check, at the end of a run, that the search has a result.

    Raises `NothingVerified` where every candidate failed, or no compressed point could be verified.
    """
    state = run.state
    mixed = [trial for trial in state.trials if trial.kind == "mixed"]
    compressed = [trial for trial in state.trials if trial.kind != "original"]
    for tried, what in ((compressed, "compressed forms of the model"), (mixed, "candidates of the search")):
        failed = [trial for trial in tried if isinstance(trial, Failed)]
        if failed and len(failed) == len(tried):
            raise NothingVerified(
                f"all {len(failed)} {what} failed, the first (t{failed[0].number}) for this reason: "
                f"{failed[0].reason}; `{command('status', run.path)}` lists the reasons"
            )
    numbers = {trial.number for trial in compressed}
    seen = [found for found in state.verified.values() if found.number in numbers]
    refused = [found for found in seen if found.reason is not None]
    if refused and len(refused) == len(seen):
        raise NothingVerified(
            f"none of {len(seen)} compressed points could be verified on {run.task.hardware.runtime}; "
            f"t{refused[0].number}: {refused[0].reason}; the trials are kept, and `{command('resume', run.path)}` "
            "verifies them again"
        )


def _check_original(inputs: VerifyInputs, exporter: Exporter) -> None:
    try:
        _export_and_load(inputs, exporter, {}, artifact_folder(inputs, 0))
    except ParedownError:
        raise
    except Exception as exception:  # a runtime may raise anything
        raise ParedownError(
            f"{inputs.task.hardware.runtime} cannot run the original: {_short(exception)}; change that part of the "
            "model, or take another [hardware] runtime"
        ) from exception


def _check_settings(inputs: VerifyInputs, exporter: Exporter) -> None:
    """Try a setting of each kind; where none of them runs, also the others, one of which may."""
    runtime, chosen = inputs.task.hardware.runtime, _one_of_each_kind(inputs)
    refused = {label: error for label, c in chosen.items() if (error := _refusal(inputs, exporter, c)) is not None}
    if refused and len(refused) == len(chosen):
        others = [c for c, label in inputs.run.facts().baselines or () if label not in chosen]
        if all(_refusal(inputs, exporter, candidate) is not None for candidate in others):
            label, error = next(iter(refused.items()))
            raise NothingVerified(
                f"{runtime} runs no compressed form of this model: uniform {label}: {_short(error)}; "
                f"{_advice(inputs, error)}"
            ) from error
    for label, error in refused.items():
        inputs.recorder.note(
            f"{runtime} does not run uniform {label}, so no point with the like will be verified: "
            f"{_short(error)}; {_advice(inputs, error)}"
        )


def _refusal(inputs: VerifyInputs, exporter: Exporter, candidate: Candidate) -> Exception | None:
    """Return the exception of a candidate that cannot be exported or loaded; None if it can."""
    inputs.clock.stop_if_asked()
    folder = artifact_folder(inputs, 0).with_name("preflight")
    try:
        _export_and_load(inputs, exporter, inputs.problem.space.assignment(candidate), folder)
    except Exception as exception:  # whatever an exporter or a runtime raises is the reason
        return exception
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return None


def _export_and_load(
    inputs: VerifyInputs, exporter: Exporter, assignment: Mapping[str, LayerSpec], folder: Path
) -> None:
    """Export an assignment, without repairs, into `folder`, and load it; run one sample where it is the original.

    What a compressed model does when it runs is not known yet: it may hang, which only a worker or a fresh process may.
    """
    from ...evaluators import Split, pinned
    from ...evaluators.latency import last_cores
    from ...evaluators.runtimes import get_runtime

    task, problem = inputs.task, inputs.problem
    format = artifact_format(task, given=problem.model_source is None)
    main = exporter.export(assignment, format, folder, repair=False)
    name = runtime_for(format, task) or task.hardware.runtime
    if name in _MINUTES_TO_LOAD:
        return
    threads = task.hardware.threads
    with pinned(last_cores(threads)):  # a runtime's own threads stay where it starts them
        session = get_runtime(name).load(
            main, threads=threads, model_factory=lambda: copy.deepcopy(problem.context.model)
        )
        if not assignment:
            session.run(Split("one", problem.calibration_inputs).take(1).inputs)


def _one_of_each_kind(inputs: VerifyInputs) -> dict[str, Candidate]:
    """Label -> uniform setting: of each kind the cheapest, which compresses the most layers."""
    facts, space = inputs.run.facts(), inputs.problem.space
    found: dict[tuple[bool, ...], tuple[str, Candidate]] = {}
    for candidate, label in facts.baselines or ():
        specs = [spec for name, spec in space.assignment(candidate).items() if not is_structural(name)]
        kind = (
            len(specs) < len(space.assignment(candidate)),
            any(spec.weight_bits < 32 for spec in specs),
            any(spec.changes_activation for spec in specs),
            any(spec.sparsity > 0.0 for spec in specs),
            any(spec.rank < 1.0 for spec in specs),
        )
        found[kind] = label, candidate
    return dict(found.values())


def _short(exception: Exception) -> str:
    text = reason(exception)
    return text if len(text) <= _REASON_SHOWN else f"{text[:_REASON_SHOWN].rstrip()}…"


def _advice(inputs: VerifyInputs, exception: Exception) -> str:
    """Say what to do: leave alone the layer that the error names, else take another runtime."""
    named = [fqn for fqn in inputs.problem.anatomy.fqns if fqn in str(exception)]
    if not named:
        return "take another [hardware] runtime, or leave that layer alone with [space] leave"
    return f'leave it alone with [space] leave = ["{max(named, key=len)}"], or take another [hardware] runtime'
