"""The check of an artifact anywhere: its files, data, quality, bytes and latency, measured again in a fresh process.

Where the task's original model is at hand, the artifact is compared with it too. Where there are only the artifact, its
runtime and the task's data, everything is checked that needs no original.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import ConfigError, InputError, MissingExtra, ParedownError, TaskError
from ..evaluators import Measurement
from .artifacts import (
    Artifact,
    ExportedModel,
    Exporter,
    ParityResult,
    capacity_options,
    is_for_elsewhere,
    latency_metrics,
    measure_beside_original,
    measure_fresh,
    measure_peak_memory,
    needs_factory,
    read_artifact,
    stored_length,
)
from .phases import settle_repairs
from .problem import AUTO, prepare
from .space import assignment_of
from .task import Plugins, Task, as_task, load_task_data, load_task_metric, load_task_model, stored_task

if TYPE_CHECKING:
    from torch import nn

    from ..compressors import Anatomy
    from ..evaluators import Metric, Split
    from .task import Splits

QUALITY_TOLERANCE = 2e-3
"""Relative difference between a claimed quality and the same one measured again: other cores may sum in another
order."""
LATENCY_TOLERANCE = 0.25
"""Relative difference beyond which a latency is said to differ. It fails no check: the machine may be another, or
busy."""

EMBEDDED = ("paredown.digits.model:digits_net", "paredown.digits.data:digits_splits")
"""Factories that an artifact may have called without a task. No others of the package: with arguments of a stranger's
choice some of it writes files."""

Check = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredAgain:
    """Measurements of an artifact for the comparison with its claims.

    metrics      name -> measurement, on the report split
    parity       comparison with PyTorch; None without the original
    no_original  why the original was not compared with; "" where it was
    """

    metrics: Mapping[str, Measurement] = field(default_factory=dict)
    parity: ParityResult | None = None
    no_original: str = ""


Measure: TypeAlias = Callable[..., MeasuredAgain]
"""A function like `measure_again`."""


def verify_artifact(
    path: Path | str, *, task: Task | Path | str | None = None, model: nn.Module | None = None
) -> dict[str, Any]:
    """Check an artifact's files and manifest, run it in a fresh process on the report split, and compare with its
    claims.

    `{"ok", "artifact", "format", "runtime", "point", "claims", "measured", "checks": [{"name", "ok", "detail"}]}`.
    Data, quality and bytes must be as claimed; another latency is reported and fails no check. Outputs must be what
    PyTorch computes with the weights and quantizers of the artifact's config, made anew: within the bound where nothing
    is rounded, and with a reason where integers miss theirs. A check says so where the original cannot be loaded.

    task   the task that it belongs to: a `Task`, its TOML file, or the folder of a run. Without it the artifact's own
           task is taken, if all code that it names comes with paredown
    model  the original model, where the task names none
    Raises `IntegrityError` for a file or a part of the manifest that was changed; `InputError` for a task of another
    model, or where only the artifact itself names the code to be run.
    """
    return check_artifact(path, task=task, model=model)


def check_artifact(
    path: Path | str,
    *,
    task: Task | Path | str | None = None,
    model: nn.Module | None = None,
    measure: Measure | None = None,
) -> dict[str, Any]:
    """Do what `verify_artifact` does, with another way to measure.

    measure  called with (artifact, task, splits, metric, model); by default `measure_again`
    """
    artifact = read_artifact(Path(path))
    used = _own_task(artifact) if task is None else _with_runtime(_given_task(task), artifact.runtime)
    if model is not None and needs_factory(artifact.format):
        raise InputError(
            f"the format {artifact.format!r} holds weights only, and a fresh process cannot build a model handed in "
            "from Python; name the model's factory in the task's [model]"
        )
    Plugins.of(used).load()
    _check_runtime(artifact)
    splits, metric = load_task_data(used), load_task_metric(used)
    measured = (measure or measure_again)(artifact, used, splits, metric, model)
    checks = [{"name": "files", "ok": True, "detail": "every file matches its checksum"}]
    checks.append(_claims_check(artifact))
    checks += _data_checks(artifact, splits)
    checks += _quality_checks(artifact, measured.metrics, metric.name)
    checks += _bytes_checks(artifact)
    checks += _latency_checks(artifact, measured.metrics)
    checks.append(_parity_check(artifact, measured.parity))
    if measured.no_original:
        checks.append({"name": "original", "ok": True, "detail": f"not compared with: {measured.no_original}"})
    return {
        "ok": all(check["ok"] for check in checks),
        "artifact": str(path),
        "format": artifact.format,
        "runtime": artifact.runtime,
        "point": artifact.point,
        "claims": {name: m.to_dict(samples=False) for name, m in artifact.claims.items()},
        "measured": {name: m.to_dict(samples=False) for name, m in measured.metrics.items()},
        "checks": checks,
    }


def _own_task(artifact: Artifact) -> Task:
    """The task that the artifact was made from, if all code that it names is of the embedded default.

    A task's factories are code, and an artifact may come from anybody, so it is not trusted with any other. It does not
    know either where the task's files are on this machine. Raises `InputError` that names the first foreign reference
    and asks for the task.
    """
    from ..hardware_profiles import list_profiles

    task = Task.from_dict(artifact.task, base_dir=_home(artifact.task))
    model, metric = task.model, task.quality.metric
    profiles = task.hardware.profile_names if task.hardware.profile else ()
    named = [
        ("model.factory", model.factory if model else None),
        ("model.export", model.export if model else None),
        ("data.factory", task.data.factory),
        ("quality.metric", metric if ":" in metric else None),
        *(("plugins", reference) for reference in task.plugins),
        *(("hardware.profile", name) for name in profiles if name not in list_profiles()),
    ]
    for key, reference in named:
        if reference is not None and reference not in EMBEDDED:
            raise InputError(
                f"{artifact.folder} was made with {key} = {reference!r}, which it does not hold, and runs on its own "
                f"word only the embedded default's; give the task that you trust with --task: its TOML file, or the "
                f"folder of the run"
            )
    return task


def _home(task: Mapping[str, Any]) -> Path:
    """Folder of the model's module if it is an embedded one, where the files that the task names are; else the current
    folder."""
    model = task.get("model")
    factory = model.get("factory") if isinstance(model, Mapping) else None
    found = find_spec(factory.partition(":")[0]) if isinstance(factory, str) and factory in EMBEDDED else None
    return Path(found.origin).parent if found is not None and found.origin else Path()


def _given_task(task: Task | Path | str) -> Task:
    """A task, its TOML file, or the task of a run."""
    return stored_task(Path(task)) if isinstance(task, str | Path) and Path(task).is_dir() else as_task(task)


def _with_runtime(task: Task, runtime: str) -> Task:
    """An artifact's runtime is known, also where the task leaves it open."""
    is_open = task.hardware.runtime == AUTO
    return task.with_overrides([f"hardware.runtime={json.dumps(runtime)}"]) if is_open else task


def measure_again(
    artifact: Artifact, task: Task, splits: Splits, metric: Metric, model: nn.Module | None
) -> MeasuredAgain:
    """Measure an artifact beside the original where it can be loaded, else alone; and its peak memory.

    Raises `InputError` for a task of another model, and `ParedownError` where the artifact does not run.
    """
    with tempfile.TemporaryDirectory(prefix="paredown-") as name:
        measured = _beside_original(artifact, task, model, Path(name))
        if measured.no_original:
            alone = _alone(artifact, task, splits.report, metric, Path(name))
            measured = MeasuredAgain(metrics=alone, no_original=measured.no_original)
        if is_for_elsewhere(artifact.format):
            return measured
        memory = measure_peak_memory(artifact.main_path, artifact.runtime, splits.report, threads=task.hardware.threads)
    return replace(measured, metrics={**measured.metrics, **memory})


def _judged(config: Mapping[str, Any], anatomy: Anatomy) -> dict[str, Any]:
    """Return the config without layers that influence nothing, which earlier versions compressed too."""
    layers = {fqn: spec for fqn, spec in config["layers"].items() if fqn not in anatomy.without_effect}
    return {**config, "layers": layers}


def _beside_original(artifact: Artifact, task: Task, model: nn.Module | None, folder: Path) -> MeasuredAgain:
    """Measure an artifact beside the original; `no_original` says why that is not possible."""
    from ..compressors import model_digest
    from ..compressors.anatomy import plain_model
    from ..evaluators.runtimes import ExportError

    if model is None:
        try:
            original = load_task_model(task)
        except (TaskError, MissingExtra) as error:
            return MeasuredAgain(no_original=str(error))
    else:
        original = plain_model(model)
    if model_digest(original) != artifact.model:
        if model is None and _lacks_weights(artifact, task):
            return MeasuredAgain(no_original="the task names the architecture, and no weights")
        raise InputError(
            f"{artifact.folder} was made from another model than the task's; give the task that it belongs to with "
            f"--task"
        )
    problem = prepare(
        task, store=folder / "store", model=model,
        specs=lambda anatomy: assignment_of(_judged(artifact.config, anatomy), anatomy).values(),
    )  # fmt: skip
    exporter = Exporter(settle_repairs(problem, _decided_repairs(artifact)), options=artifact.runtime_options or None)
    try:
        reference = exporter.export({}, artifact.format, folder / "original")
    except (MissingExtra, ExportError) as error:
        return MeasuredAgain(no_original=f"it cannot be exported here ({error})")
    assignment = assignment_of(_judged(artifact.config, problem.anatomy), problem.anatomy)
    exported = ExportedModel(
        folder=artifact.folder, main=artifact.main_path, assignment=assignment,
        format=artifact.format, runtime=artifact.runtime,
    )  # fmt: skip
    measured = measure_beside_original(
        exporter, exported, reference, folder, must_agree=False, with_sizes=False,
        throughput=not is_for_elsewhere(artifact.format),
    )  # fmt: skip
    _require_ran(artifact, measured.reason)
    return MeasuredAgain(metrics=measured.metrics, parity=measured.parity)


def _decided_repairs(artifact: Artifact) -> Mapping[str, Any] | None:
    """Return the repairs that were decided when the artifact was made; None where its task still leaves them open."""
    repair = artifact.task.get("repair", {})
    is_decided = isinstance(repair.get("bias"), bool) and repair.get("batch_norm") in ("off", "finalists", "trials")
    return repair if is_decided and "samples" in repair else None


def _lacks_weights(artifact: Artifact, task: Task) -> bool:
    """True where the task leaves out the weights file that the artifact's own task loads into the architecture."""
    own = artifact.task.get("model")
    has_weights = isinstance(own, Mapping) and own.get("weights") is not None
    return has_weights and task.model is not None and task.model.factory is not None and task.model.weights is None


def _alone(artifact: Artifact, task: Task, report: Split, metric: Metric, folder: Path) -> dict[str, Measurement]:
    """Measurements that need no original: latencies, and the metric where it has no reference."""
    from ..evaluators import evaluate_batches, summarise

    if needs_factory(artifact.format) and task.model is None:
        raise InputError(
            f"{artifact.folder} holds weights of the format {artifact.format!r}, and the task has no [model] to load "
            f"them into; name the architecture's factory there (weights may be left out)"
        )
    timed = not is_for_elsewhere(artifact.format)
    loaded = measure_fresh(
        {"artifact": artifact.main_path.resolve()}, runtime=artifact.runtime, split=report,
        batch_size=task.data.batch_size, threads=task.hardware.threads, folder=folder / "fresh",
        model_source=_architecture(task), plugins=Plugins.of(task), seconds=task.hardware.latency_seconds,
        latency=timed, capacity=capacity_options(task) if timed else None,
    )["artifact"]  # fmt: skip
    _require_ran(artifact, loaded.reason)
    measured = latency_metrics(loaded, task.hardware.grid_g_per_kwh)
    if loaded.outputs is not None and not metric.needs_reference:
        scores = evaluate_batches(loaded.outputs.pieces(), report, metric)
        measured[metric.name] = summarise(scores.metric, metric, report.name)
    return measured


def _architecture(task: Task) -> dict[str, Any] | None:
    """Source of the architecture for a fresh process, without the original's weights; None where no model is named."""
    data = task.to_dict()
    if not data.get("model"):
        return None
    data["model"] = {key: value for key, value in data["model"].items() if key != "weights"}
    return {"task": data, "base_dir": str(task.base_dir)}


def _require_ran(artifact: Artifact, reason: str | None) -> None:
    if reason is not None:
        error = ConfigError if "belongs to another model" in reason else ParedownError
        if reason.startswith("MissingExtra:"):
            error = MissingExtra
        raise error(f"{artifact.folder} cannot be run: {reason}")


def _check_runtime(artifact: Artifact) -> None:
    """Raise `InputError` for a runtime or a format that is not known here."""
    from ..evaluators.runtimes import get_runtime, list_formats

    try:
        get_runtime(artifact.runtime)
    except InputError as error:
        raise InputError(
            f"{artifact.folder} is for a runtime that is not known here: {error}; one of your own comes with the "
            f"plugins of the task, --task"
        ) from None
    if artifact.format not in list_formats():
        raise InputError(
            f"{artifact.folder} has the format {artifact.format!r}, and known are {', '.join(list_formats())}; one of "
            f"your own comes with the plugins of the task, --task"
        )


def _claims_check(artifact: Artifact) -> Check:
    """State whether digests protect the manifest; an edited part was refused when it was read."""
    detail = "every claim, its interval, the config and the agreement match their digests"
    if not artifact.protected:
        detail = "not protected: an older paredown wrote this manifest without digests; export the artifact again"
    return {"name": "claims", "ok": True, "detail": detail}


def _data_checks(artifact: Artifact, splits: Splits) -> list[Check]:
    """Check that the report split is the one that the claims were measured on."""
    claimed, here = artifact.data.get("report"), splits.facts()["report"]
    if claimed is None:  # schema 1 has no digests
        return []
    same = claimed.get("sha256") == here["sha256"]
    detail = f"the report split is the one that was claimed on, {here['n']} samples"
    if not same:
        detail = f"the report split is another than that of the claims ({here['n']} samples; {claimed.get('n')} then)"
    return [{"name": "data", "ok": same, "detail": detail}]


def _quality_checks(artifact: Artifact, measured: Mapping[str, Measurement], quality: str) -> list[Check]:
    claims = artifact.claims
    if quality not in claims:
        claimed = ", ".join(claims) or "nothing"
        detail = (
            f"nothing is claimed of it, so that no quality is compared; claimed are {claimed}: is it the right task?"
        )
        return [{"name": quality, "ok": False, "detail": detail}]
    claim = claims[quality].value
    if quality not in measured:
        detail = f"claimed {claim:.6g}; not measured: it compares with the original"
        return [{"name": quality, "ok": True, "detail": detail}]
    now = measured[quality].value
    close = abs(claim - now) / max(abs(claim), 1e-12) <= QUALITY_TOLERANCE
    return [{"name": quality, "ok": close, "detail": f"claimed {claim:.6g}, measured {now:.6g}"}]


def _bytes_checks(artifact: Artifact) -> list[Check]:
    """Check the length of a stored model. Other formats claim the bytes of a stored model that they do not hold."""
    if "bytes" not in artifact.claims or artifact.format != "paredown":
        return []
    claimed, length = int(artifact.claims["bytes"].value), stored_length(artifact.main_path)
    return [{"name": "bytes", "ok": claimed == length, "detail": f"claimed {claimed}, the file has {length}"}]


def _latency_checks(artifact: Artifact, measured: Mapping[str, Measurement]) -> list[Check]:
    claims = artifact.claims
    if "latency_ms" not in measured or "latency_ms" not in claims or claims["latency_ms"].source != "measured":
        return []
    claim, now = claims["latency_ms"].value, measured["latency_ms"].value
    close = abs(claim - now) <= LATENCY_TOLERANCE * claim
    detail = f"claimed {claim:.4g} ms, measured {now:.4g} ms" + ("" if close else "; another machine, or a busy one")
    return [{"name": "latency_ms", "ok": True, "detail": detail}]


def _parity_check(artifact: Artifact, parity: ParityResult | None) -> Check:
    if parity is None:
        claimed = f"; it says: {artifact.agreement}" if artifact.agreement else ""
        detail = f"not compared with PyTorch, for want of the original{claimed}"
        return {"name": "agreement", "ok": True, "detail": detail}
    # formats for other devices may round more than the search did
    return {"name": "agreement", "ok": not parity.is_broken or is_for_elsewhere(artifact.format), "detail": parity.text}
