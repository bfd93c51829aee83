"""The check of an artifact that lies somewhere: files, data, quality, bytes, latency, in a fresh process.

Where the task's original model is at hand, the artifact is compared with it too. Where only the artifact, its runtime
and the task's data are, everything is checked that needs no original.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, InputError, MissingExtra, ParedownError, TaskError
from ..evaluators import Measurement
from .artifacts import REFERENCE, Artifact, Loaded, measure_fresh, read_artifact
from .problem import AUTO
from .space import assignment_of
from .task import Plugins

if TYPE_CHECKING:
    from torch import nn

    from ..evaluators import Metric, Split
    from .artifacts import Agreed
    from .task import Splits, Task

QUALITY_TOLERANCE = 2e-3
"""Relative: how far a quality measured again may lie from the claim. Other cores may sum in another order."""
LATENCY_TOLERANCE = 0.25
"""Relative: beyond it the latency is said to differ. It never fails a check: the machine may be another, or busy."""

EMBEDDED = ("paredown.digits.model:digits_net", "paredown.digits.data:digits_splits")
"""What an artifact may have called on its own word. No more of the package: with arguments of a stranger's choice some
of it writes files."""

Check = dict[str, Any]


def verify_artifact(
    path: Path | str, *, task: Task | Path | str | None = None, model: nn.Module | None = None
) -> dict[str, Any]:
    """Check an artifact's files, load it in a fresh process, measure it on the report split, and compare with its
    claims.

    `{"ok", "artifact", "format", "runtime", "point", "claims", "measured", "checks": [{"name", "ok", "detail"}]}`.
    Data, quality and bytes must be what was claimed; a latency that differs is reported and does not fail the check.
    Outputs must be what PyTorch computes with the weights and quantizers of the artifact's config, made anew: within
    the bound where nothing is rounded; where integers miss theirs, the reason is said.
    The original model is compared with where it can be loaded; a check says so where it cannot.
    task    the task that it belongs to: itself, its TOML file, or the folder of a run. Without it the artifact's own is
            taken, where all code that it names comes with paredown
    Raises `IntegrityError` for a file that was changed, and `InputError` for a task of another model, or where only
    the artifact itself names the code to be run (see `_own_task`).
    """
    from .artifacts import is_for_elsewhere, needs_factory, peak_memory_of
    from .task import load_task_data, load_task_metric

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
    with tempfile.TemporaryDirectory(prefix="paredown-") as name:
        folder = Path(name)
        whole, agreed, why = _with_original(artifact, used, model, folder)
        measured = whole if whole is not None else _alone(artifact, used, splits.report, metric, folder)
        if not is_for_elsewhere(artifact.format):
            measured |= peak_memory_of(
                artifact.main_path, artifact.runtime, splits.report, threads=used.hardware.threads
            )
    checks = [{"name": "files", "ok": True, "detail": "every file matches its checksum"}]
    checks += _data_checks(artifact, splits)
    checks += _claim_checks(artifact, measured, metric.name)
    checks.append(_agreement_check(artifact, agreed))
    if why:
        checks.append({"name": "original", "ok": True, "detail": f"not compared with: {why}"})
    return {
        "ok": all(check["ok"] for check in checks),
        "artifact": str(path),
        "format": artifact.format,
        "runtime": artifact.runtime,
        "point": artifact.point,
        "claims": {name: m.to_dict(samples=False) for name, m in artifact.claims.items()},
        "measured": {name: m.to_dict(samples=False) for name, m in measured.items()},
        "checks": checks,
    }


def _own_task(artifact: Artifact) -> Task:
    """The task that the artifact was made from, where all code that it names is of the embedded default.

    A task's factories are code, and an artifact may come from anybody, so its word is not enough for anything else; nor
    does it know where the task's files lie on this machine. Raises `InputError` that names the first, and asks for the
    task.
    """
    from ..hardware_profiles import list_profiles
    from .task import Task

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
    """The folder of the model's module, where that is ours: there lies what the task names by a file."""
    model = task.get("model")
    factory = model.get("factory") if isinstance(model, Mapping) else None
    found = find_spec(factory.partition(":")[0]) if isinstance(factory, str) and factory in EMBEDDED else None
    return Path(found.origin).parent if found is not None and found.origin else Path()


def _given_task(task: Task | Path | str) -> Task:
    """A task, its TOML file, or the task of a run."""
    from .task import as_task, stored_task

    return stored_task(Path(task)) if isinstance(task, str | Path) and Path(task).is_dir() else as_task(task)


def _with_runtime(task: Task, runtime: str) -> Task:
    """An artifact's runtime is known, also where the task leaves it open."""
    is_open = task.hardware.runtime == AUTO
    return task.with_overrides([f"hardware.runtime={json.dumps(runtime)}"]) if is_open else task


def _with_original(
    artifact: Artifact, task: Task, model: nn.Module | None, folder: Path
) -> tuple[dict[str, Measurement] | None, Agreed | None, str]:
    """What is measured beside the original, and how far it agrees with PyTorch; or None twice, and why the original is
    not to be had."""
    from ..compressors import model_digest
    from ..evaluators.runtimes import ExportError
    from .artifacts import Exporter, is_for_elsewhere, judge_loaded
    from .problem import prepare
    from .task import load_task_model

    if model is None:
        try:
            original = load_task_model(task)
        except (TaskError, MissingExtra) as error:
            return None, None, str(error)
    else:
        original = model
    if model_digest(original) != artifact.model:
        if model is None and _lacks_weights(artifact, task):
            return None, None, "the task names the architecture, and no weights"
        raise InputError(
            f"{artifact.folder} was made from another model than the task's; give the task that it belongs to with "
            f"--task"
        )
    problem = prepare(
        task, store=folder / "store", model=model,
        specs=lambda anatomy: assignment_of(artifact.config, anatomy).values(),
    )  # fmt: skip
    exporter = Exporter(problem)
    try:
        reference = exporter.export({}, artifact.format, folder / "original")
    except (MissingExtra, ExportError) as error:
        return None, None, f"it cannot be exported here ({error})"
    artifacts = {REFERENCE: reference, "artifact": artifact.main_path.resolve()}
    elsewhere = is_for_elsewhere(artifact.format)
    found = exporter.measure(
        artifacts, runtime=artifact.runtime, folder=folder / "fresh", throughput=not elsewhere, is_reference=elsewhere
    )["artifact"]
    _require_ran(artifact, found)
    agreed = exporter.agreed(
        assignment_of(artifact.config, problem.anatomy), found.outputs, artifact.main_path,
        runtime="" if elsewhere else artifact.runtime,
    )  # fmt: skip
    return judge_loaded(problem, exporter.reference, found)[0] | agreed.metrics, agreed, ""


def _lacks_weights(artifact: Artifact, task: Task) -> bool:
    """Whether the task leaves out the weights file that the artifact's own task loads into the architecture."""
    own = artifact.task.get("model")
    has_weights = isinstance(own, Mapping) and own.get("weights") is not None
    return has_weights and task.model is not None and task.model.factory is not None and task.model.weights is None


def _alone(artifact: Artifact, task: Task, report: Split, metric: Metric, folder: Path) -> dict[str, Measurement]:
    """What can be measured with the artifact and the data alone."""
    from ..evaluators import evaluate_outputs, summarise
    from .artifacts import is_for_elsewhere, latencies, needs_factory

    if needs_factory(artifact.format) and task.model is None:
        raise InputError(
            f"{artifact.folder} holds weights of the format {artifact.format!r}, and the task has no [model] to load "
            f"them into; name the architecture's factory there (weights may be left out)"
        )
    elsewhere = is_for_elsewhere(artifact.format)
    found = measure_fresh(
        {"artifact": artifact.main_path.resolve()}, runtime=artifact.runtime, split=report,
        batch_size=task.data.batch_size, threads=task.hardware.threads, folder=folder / "fresh",
        model_source=_architecture(task), plugins=Plugins.of(task), seconds=task.hardware.latency_seconds,
        latency=not elsewhere,
        capacity=None if elsewhere else {
            "batch": task.hardware.batch, "p95_limit_ms": task.hardware.throughput_p95_ms,
            "seconds": min(0.3, task.hardware.latency_seconds),
        },
    )["artifact"]  # fmt: skip
    _require_ran(artifact, found)
    measured = latencies(found, task.hardware.grid_g_per_kwh)
    if not metric.needs_reference and found.outputs is not None:
        scores = evaluate_outputs(metric, report, found.outputs)
        measured[metric.name] = summarise(scores, metric, report.name)
    return measured


def _architecture(task: Task) -> dict[str, Any] | None:
    """How a fresh process makes the architecture, without the original's weights; None where no model is named."""
    data = task.to_dict()
    if not data.get("model"):
        return None
    data["model"] = {key: value for key, value in data["model"].items() if key != "weights"}
    return {"task": data, "base_dir": str(task.base_dir)}


def _require_ran(artifact: Artifact, found: Loaded) -> None:
    if found.reason is not None:
        error = ConfigError if "belongs to another model" in found.reason else ParedownError
        if found.reason.startswith("MissingExtra:"):
            error = MissingExtra
        raise error(f"{artifact.folder} cannot be run: {found.reason}")


def _check_runtime(artifact: Artifact) -> None:
    """Raises `InputError` for a runtime, or a format, of which nothing is known here."""
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


def _data_checks(artifact: Artifact, splits: Splits) -> list[Check]:
    """Whether the claims are about the very samples that are here."""
    said, here = artifact.data.get("report"), splits.facts()["report"]
    if said is None:  # schema 1 did not say
        return []
    same = said.get("sha256") == here["sha256"]
    detail = f"the report split is the one that was claimed on, {here['n']} samples"
    if not same:
        detail = f"the report split is another than that of the claims ({here['n']} samples; {said.get('n')} then)"
    return [{"name": "data", "ok": same, "detail": detail}]


def _agreement_check(artifact: Artifact, agreed: Agreed | None) -> Check:
    from .artifacts import is_for_elsewhere

    if agreed is None:
        said = f"; it says: {artifact.agreement}" if artifact.agreement else ""
        return {"name": "agreement", "ok": True, "detail": f"not compared with PyTorch, for want of the original{said}"}
    ok = not agreed.broken or is_for_elsewhere(artifact.format)  # those may round more than the search did
    return {"name": "agreement", "ok": ok, "detail": agreed.text}


def _claim_checks(artifact: Artifact, measured: Mapping[str, Measurement], quality: str) -> list[Check]:
    checks: list[Check] = []
    claims = artifact.claims
    if quality in claims and quality in measured:
        claim, now = claims[quality].value, measured[quality].value
        apart = abs(claim - now) / max(abs(claim), 1e-12)
        checks.append(
            {"name": quality, "ok": apart <= QUALITY_TOLERANCE, "detail": f"claimed {claim:.6g}, measured {now:.6g}"}
        )
    elif quality in claims:
        checks.append(
            {
                "name": quality,
                "ok": True,
                "detail": f"claimed {claims[quality].value:.6g}; not measured: it compares with the original",
            }
        )
    else:
        said = ", ".join(claims) or "nothing"
        detail = f"nothing is claimed of it, so that no quality is compared; claimed are {said}: is it the right task?"
        checks.append({"name": quality, "ok": False, "detail": detail})
    if "bytes" in claims and artifact.format == "paredown":
        claimed, length = int(claims["bytes"].value), artifact.main_path.stat().st_size
        checks.append({"name": "bytes", "ok": claimed == length, "detail": f"claimed {claimed}, the file has {length}"})
    if "latency_ms" in measured and "latency_ms" in claims and claims["latency_ms"].source == "measured":
        claim, now = claims["latency_ms"].value, measured["latency_ms"].value
        close = abs(claim - now) <= LATENCY_TOLERANCE * claim
        detail = f"claimed {claim:.4g} ms, measured {now:.4g} ms" + (
            "" if close else "; another machine, or a busy one"
        )
        checks.append({"name": "latency_ms", "ok": True, "detail": detail})
    return checks
