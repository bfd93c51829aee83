"""Which kernels a verified point's layers ran in, beside what its export asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._manifest import MANIFEST, read_artifact

if TYPE_CHECKING:
    from ..run import StoredRun


def kernels_of(run: StoredRun, number: int) -> tuple[dict[str, str], dict[str, str]]:
    """(fqn -> kernel, fqn -> what is wrong) of a trial's artifact, loaded here once more; both empty where the trial
    has none, or its runtime does not say what it runs.

    Raises what the runtime raises for an artifact that it cannot load.
    """
    from ...evaluators.prediction import forms_of
    from ...evaluators.runtimes import kernels_by_layer, ran_otherwise

    folder = run.path / "verified" / f"t{number}"
    anatomy = run.facts().anatomy
    if not (folder / MANIFEST).is_file() or anatomy is None:
        return {}, {}
    artifact = read_artifact(folder)
    trial = run.trial(f"t{number}")
    assignment = {} if trial.kind == "original" else run.space.assignment(trial.candidate)
    kernels = kernels_by_layer(artifact.main_path, artifact.runtime, anatomy.fqns, threads=run.task.hardware.threads)
    forms = forms_of(anatomy, assignment)
    return kernels, ran_otherwise(kernels, {fqn: form.integer for fqn, form in forms.items()})


def add_kernels(run: StoredRun, point: str, layers: list[dict[str, Any]]) -> dict[str, str]:
    """Puts `ran` into the rows of `Run.explain`, where it is known; gives the layers that ran otherwise, and how."""
    kernels, wrong = kernels_of(run, int(point.removeprefix("t")))
    for row in layers:
        if ran := list(dict.fromkeys(kernels[fqn] for fqn in row["layers"] if fqn in kernels)):
            row["ran"] = ", ".join(ran)
    return wrong
