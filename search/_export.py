"""Artifacts on demand, from a point of a run or from a config."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..compressors import LayerSpec
from ..errors import ConfigError, InputError, ParedownError
from .artifacts import (
    CONFIG,
    MANIFEST,
    ExportedModel,
    Exporter,
    artifact_format,
    inside,
    measure_beside_original,
    needs_factory,
    read_artifact,
    runtime_for,
    write_artifact,
)
from .front import front_of
from .phases import settle_repairs
from .problem import Problem, prepare, settle_runtime
from .run import read_run, store_path, write_atomic
from .space import Structured, assignment_of, check_statistics, config_of, read_config, with_claims
from .task import Plugins, settle_profile
from .values import static_measurements, structure_of

if TYPE_CHECKING:
    from torch import nn

    from .task import Task
    from .values import Completed


def export_point(
    run: Path | str,
    point: str,
    format: str,
    out: Path | str,
    *,
    model: nn.Module | None = None,
    entropy: bool = False,
) -> Path:
    """Write a point's artifact into the (new or empty) folder `out`, measured in a fresh process; gives the folder.

    point    an id, a pick, or limits (see `Front.pick`)
    format   "paredown", "onnx", "openvino", "pt2", the format of your own runtime, "config" (the JSON alone), or one
             for devices and tools that are not here: "tensorrt-onnx", "compressed-tensors", "torchao-config",
             "executorch" (docs/exports.md). A format that nothing here can run ("torchao-config") gets no manifest
    model    again, if the search was given it
    entropy  code the stored weights: fewer bytes, and slower to load; for the format "paredown" alone

    Raises `InputError` for a folder that is not empty or a format that is not known, and `ParedownError` where the
    artifact does not run, or does not compute what PyTorch computes.
    """
    _check_entropy(entropy, format)
    opened = read_run(run)
    if format != "config":
        runtime_for(format, opened.task)
    chosen = front_of(opened).pick(point) if not _is_id(point) else None
    trial = opened.trial(chosen.id if chosen is not None else point)
    verified = opened.path / "verified" / f"t{trial.number}"
    is_made = format != "config" and (verified / MANIFEST).exists() and _is_wanted(verified, format, entropy)
    if format != "config" and not is_made:
        _check_model(opened.task, model, format)
    out = _empty_folder(Path(out))
    assignment = {} if trial.kind == "original" else opened.space.assignment(trial.candidate)
    if format == "config":
        known = front_of(opened, everything=True)[f"t{trial.number}"].metrics
        write_atomic(out / CONFIG, json.dumps(with_claims(config_of(assignment), known), indent=2) + "\n")
        return out
    if is_made:
        for file in sorted(verified.rglob("*")):
            target = inside(out, file.relative_to(verified).as_posix())
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.is_file():
                shutil.copy2(file, target)
        read_artifact(out)  # what was copied is what was measured
        return out
    problem = prepare(opened.task, store=store_path(opened.path), model=model, specs=lambda _: assignment.values())
    problem = settle_repairs(problem, opened.facts().repair)
    # a run of an earlier version may hold layers that influence nothing
    assignment = {fqn: spec for fqn, spec in assignment.items() if fqn not in problem.anatomy.without_effect}
    _check_units(problem, assignment, trial)
    return _make(problem, assignment, format, out, point=f"t{trial.number}", entropy=entropy)


def apply_config(
    config: Path | str | Mapping[str, Any],
    task: Task | Path | str,
    out: Path | str,
    *,
    format: str | None = None,
    model: nn.Module | None = None,
    entropy: bool = False,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Write the artifact of a config, exported or made by hand, into the (new or empty) folder `out`, without a search.

    format   default: the format of the task's runtime
    model    the model itself, where the task names none
    entropy  as in `export_point`
    say      is told of layers that stay as they are, though the config names them

    A layer of `[space] leave` whose calibration data do not allow what the config asks for stays as it is.
    Gives the folder. Raises `ConfigError` for a config of another model, and what `export_point` raises.
    """
    from .task import as_task

    task = settle_profile(settle_runtime(as_task(task), model=model)[0])
    data = config if isinstance(config, Mapping) else read_config(Path(config))
    Plugins.of(task).load()
    format = format or artifact_format(task, given=model is not None)
    runtime_for(format, task)
    _check_entropy(entropy, format)
    _check_model(task, model, format)
    out = Path(out)
    _check_empty(out)
    problem = prepare(
        task, store=store_path(out), model=model, specs=lambda anatomy: assignment_of(data, anatomy).values()
    )
    problem = settle_repairs(problem)
    assignment = assignment_of(data, problem.anatomy)
    for fqn in _impossible_and_left(assignment, problem):
        assignment[fqn] = LayerSpec()
        if say is not None:
            say(f"{fqn} stays as it is: [space] leave names it, and its inputs do not allow the config's spec")
    (problem.context.structured or Structured()).check(assignment)
    return _make(problem, assignment, format, _empty_folder(out), point="config", entropy=entropy)


def _impossible_and_left(assignment: Mapping[str, LayerSpec], problem: Problem) -> list[str]:
    """Return the layers of `[space] leave` whose specs need statistics that there are not."""
    from ..compressors.variants import lacks

    layers, calibration = problem.anatomy.layers, problem.context.calibration
    left = [x for x in layers if any(fnmatchcase(x.fqn, glob) for glob in problem.task.space.leave)]
    return [x.fqn for x in left if lacks(assignment.get(x.fqn, LayerSpec()), x, calibration) is not None]


def _check_units(problem: Problem, assignment: Mapping[str, LayerSpec], trial: Completed) -> None:
    """Raise `ConfigError` where the trial's shares would keep another number of units now."""
    from .evaluation import LayerVariants, PrunedModelBuilder, macs_left

    if not structure_of(assignment):
        return
    (problem.context.structured or Structured()).check(assignment)
    pruned_models = PrunedModelBuilder(LayerVariants(problem.context))
    now, then = macs_left(problem, pruned_models, assignment), trial.metrics["macs"].value
    if not isclose(now, then, rel_tol=1e-6):
        raise ConfigError(
            f"t{trial.number} had {then:.0f} MACs when it was tried, and what it keeps would have {now:.0f} now: a "
            "profile or paredown changed since, and with it what units are rounded to. Export it as 'config', and "
            "apply that to a task whose [space] round_to says what it was (1: no rounding)"
        )


def _check_entropy(entropy: bool, format: str) -> None:
    if entropy and format != "paredown":
        raise InputError(f"entropy coding is for the format 'paredown', which is ours; {format!r} is its runtime's own")


def _is_wanted(folder: Path, format: str, entropy: bool) -> bool:
    artifact = read_artifact(folder)
    return artifact.format == format and bool(artifact.storage.get("entropy")) == entropy


def _make(
    problem: Problem,
    assignment: Mapping[str, LayerSpec],
    format: str,
    out: Path,
    *,
    point: str,
    entropy: bool = False,
) -> Path:
    """Export, run in a fresh process, compare with PyTorch, measure, and only then write the manifest. Nothing is left
    of an artifact that fails on the way.
    """
    try:
        return _make_checked(problem, assignment, format, out, point=point, entropy=entropy)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _make_checked(
    problem: Problem, assignment: Mapping[str, LayerSpec], format: str, out: Path, *, point: str, entropy: bool
) -> Path:
    check_statistics(assignment, problem.anatomy, problem.context.calibration)
    exporter = Exporter(problem)
    main = exporter.export(assignment, format, out, entropy=entropy)
    runtime = runtime_for(format, problem.task)
    if runtime is None:  # nothing here can run it, so nothing is claimed of it
        return out
    exported = ExportedModel(folder=out, main=main, assignment=assignment, format=format, runtime=runtime)
    with tempfile.TemporaryDirectory(prefix="paredown-") as name:
        original = exporter.export({}, format, Path(name) / "original")
        measured = measure_beside_original(exporter, exported, original, Path(name))
    if not measured.ran:
        raise ParedownError(f"the export does not run: {measured.reason}")
    if measured.reason is not None:
        raise ParedownError(measured.reason)
    _, plain, _, anatomy = exporter.remaining_model(assignment)
    totals = problem.devices[0].whole(anatomy, plain)
    modelled = static_measurements(totals, problem.task.hardware.grid_g_per_kwh)
    write_artifact(
        exported, exporter, claims={**modelled, **measured.metrics, **measured.sizes}, point=point,
        facts=measured.facts, agreement=measured.parity_text, entropy=entropy,
    )  # fmt: skip
    return out


def _check_model(task: Task, model: nn.Module | None, format: str) -> None:
    """Raise `InputError` where a fresh process would have no model, or nothing to build it with."""
    if model is None and task.model is None:
        raise InputError(
            "the model was handed in from Python and the task names none: do this from Python too, with model=, or "
            "name it in the task's [model]"
        )
    if model is not None and needs_factory(format):
        raise InputError(
            f"the format {format!r} holds weights only, and a fresh process cannot build a model that was handed in "
            "from Python; take 'pt2' or 'onnx', or name the model's factory in the task's [model]"
        )


def _is_id(expression: str) -> bool:
    return expression.startswith("t") and expression[1:].isdigit()


def _check_empty(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not empty; choose another --out")


def _empty_folder(out: Path) -> Path:
    _check_empty(out)
    out.mkdir(parents=True, exist_ok=True)
    return out
