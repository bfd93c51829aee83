"""Kernels that a verified point's layers ran in, beside those that its export asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from ._manifest import MANIFEST, read_artifact

if TYPE_CHECKING:
    from ..run import StoredRun

FindKernels: TypeAlias = Callable[..., dict[str, str]]
"""A function like `kernels_by_layer`."""


def kernels_of(
    run: StoredRun, number: int, *, find: FindKernels | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """(fqn -> kernel, fqn -> difference from the export) of a trial's artifact, which is loaded here once more.

    Both are empty where the trial has no artifact, or its runtime does not tell its kernels.

    find  finds the kernels of a main file; by default `kernels_by_layer`

    Raises what the runtime raises for an artifact that it cannot load.
    """
    from ...evaluators.prediction import forms_of
    from ...evaluators.runtimes import kernels_by_layer, ran_otherwise

    folder = run.path / "verified" / f"t{number}"
    if not (folder / MANIFEST).is_file() or (anatomy := run.facts().anatomy) is None:
        return {}, {}
    artifact = read_artifact(folder)
    trial = run.trial(f"t{number}")
    assignment = {} if trial.kind == "original" else run.space.assignment(trial.candidate)
    kernels = (find or kernels_by_layer)(
        artifact.main_path, artifact.runtime, anatomy.fqns, threads=run.task.hardware.threads
    )
    forms = forms_of(anatomy, assignment)
    return kernels, ran_otherwise(kernels, {fqn: form.integer for fqn, form in forms.items()})


def add_kernels(
    run: StoredRun, point: str, layers: list[dict[str, Any]], *, find: FindKernels | None = None
) -> dict[str, str]:
    """Put `ran` into the rows of `Run.explain` where it is known.

    find  see `kernels_of`
    Gives fqn -> difference for the layers that ran in another kernel than the export asked for.
    """
    kernels, wrong = kernels_of(run, int(point.removeprefix("t")), find=find)
    for row in layers:
        if ran := list(dict.fromkeys(kernels[fqn] for fqn in row["layers"] if fqn in kernels)):
            row["ran"] = ", ".join(ran)
    return wrong
