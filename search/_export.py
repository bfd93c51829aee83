"""Artifacts on demand: of a point, of a config, and the check of one that lies somewhere."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, ParedownError
from ..evaluators import Measurement
from ._artifact import CONFIG, MANIFEST, inside, read_artifact
from ._config import assignment_of, config_of, read_config, with_claims
from ._devices import static_measurements
from ._driver import store_path
from ._fresh import REFERENCE
from ._ledger import write_atomic
from ._plugins import Plugins
from ._prepare import Prepared, prepare
from ._run import open_run
from ._structure import Structured
from ._workshop import Workshop, artifact_format, judge_loaded, runtime_for, write_artifact

if TYPE_CHECKING:
    from torch import nn

    from ..compressors import LayerSpec
    from ._task import Task

QUALITY_TOLERANCE = 2e-3
"""Relative: how far a quality measured again may lie from the claim. Other cores may sum in another order."""
LATENCY_TOLERANCE = 0.25
"""Relative: beyond it the latency is said to differ. It never fails a check: the machine may be another, or busy."""


def export_point(run: Path | str, point: str, format: str, out: Path | str, *, model: nn.Module | None = None) -> Path:
    """Write a point's artifact into the (new or empty) folder `out`, measured in a fresh process; gives the folder.

    point   an id, a pick, or limits (see `Front.pick`)
    format  "paredown", "onnx", "openvino", "pt2", that of a runtime of your own, or "config" (the JSON alone)
    """
    opened = open_run(run)
    if format != "config":
        runtime_for(format, opened.task)
    chosen = opened.front().pick(point) if not _is_id(point) else None
    trial = opened.trial(chosen.id if chosen is not None else point)
    verified = opened.path / "verified" / f"t{trial.number}"
    is_made = format != "config" and (verified / MANIFEST).exists() and read_artifact(verified).format == format
    if format != "config" and not is_made:
        _check_model(opened.task, model, format)
    out = _empty_folder(Path(out))
    assignment = {} if trial.kind == "original" else opened.space.assignment(trial.candidate)
    if format == "config":
        known = opened.front(all=True)[f"t{trial.number}"].metrics
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
    prepared = prepare(opened.task, store=store_path(opened.path), model=model, specs=lambda _: assignment.values())
    return _make(prepared, assignment, format, out, point=f"t{trial.number}")


def apply_config(
    config: Path | str | Mapping[str, Any],
    task: Task | Path | str,
    out: Path | str,
    *,
    format: str | None = None,
    model: nn.Module | None = None,
) -> Path:
    """A config, exported or written by hand, to a measured artifact in the (new or empty) folder `out`; no search.

    format  default: that of the task's runtime
    Raises `ConfigError` for a config of another model.
    """
    from ._driver import as_task

    task = as_task(task)
    data = config if isinstance(config, Mapping) else read_config(Path(config))
    Plugins.of(task).load()
    format = format or artifact_format(task, given=model is not None)
    runtime_for(format, task)
    _check_model(task, model, format)
    out = Path(out)
    _check_empty(out)
    prepared = prepare(
        task, store=store_path(out), model=model, specs=lambda anatomy: assignment_of(data, anatomy).values()
    )
    assignment = assignment_of(data, prepared.anatomy)
    (prepared.bench.structured or Structured()).check(assignment)
    return _make(prepared, assignment, format, _empty_folder(out), point="config")


def verify_artifact(
    path: Path | str, *, task: Task | Path | str | None = None, model: nn.Module | None = None
) -> dict[str, Any]:
    """Check an artifact's files, load it in a fresh process, measure it on the report split, and compare with its
    claims.

    `{"ok", "artifact", "format", "runtime", "point", "claims", "measured", "checks": [{"name", "ok", "detail"}]}`.
    Quality and bytes must be reproduced; a latency that differs is reported and does not fail the check.
    Raises `IntegrityError` for a file that was changed.
    """
    from ._driver import as_task
    from ._task import Task

    artifact = read_artifact(Path(path))
    used = Task.from_dict(artifact.task, base_dir=artifact.base_dir) if task is None else as_task(task)
    _check_model(used, model, artifact.format)
    with tempfile.TemporaryDirectory(prefix="paredown-") as folder:
        prepared = prepare(used, store=Path(folder) / "store", model=model)
        if prepared.model_digest != artifact.model:
            raise InputError(
                f"{path} was made from another model than the task's; give the task that it belongs to with --task"
            )
        shop = Workshop(prepared)
        original = shop.export({}, artifact.format, Path(folder) / "original")
        artifacts = {REFERENCE: original, "artifact": artifact.main_path.resolve()}
        found = shop.measure(artifacts, runtime=artifact.runtime, folder=Path(folder) / "fresh")
        if found["artifact"].reason is not None:
            raise ParedownError(f"{path} cannot be run: {found['artifact'].reason}")
        measured, _ = judge_loaded(prepared, shop.reference, found["artifact"])
        measured |= _capacity(artifact.main_path, artifact.runtime, used, prepared)
    checks = _checks(artifact.claims, measured, prepared.bench.metric.name)
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


def _capacity(path: Path, runtime: str, task: Task, prepared: Prepared) -> dict[str, Measurement]:
    """Peak memory of a session in a process of its own, and samples a second at the best batch; for a runtime that
    loads the artifact without the user's code."""
    import numpy as np

    from ..evaluators.latency import exclusive_slot, last_cores, peak_memory, pinned, throughput
    from ..evaluators.runtimes import get_runtime

    if runtime not in ("onnxruntime", "openvino"):
        return {}
    threads = task.hardware.threads
    found = {"peak_memory_bytes": peak_memory(path, runtime, prepared.report.take(1).inputs, threads=threads)}
    with pinned(last_cores(threads)), exclusive_slot():
        session = get_runtime(runtime).load(path, threads=threads)

        def timer(batch: int) -> Callable[[], None]:
            inputs = prepared.report.take(batch).inputs

            def run() -> None:
                session.run(inputs)

            return run

        batches = [b for b in (1, 2, 4, 8, 16, 32, 64) if b <= len(prepared.report)]
        seconds = min(0.3, task.hardware.latency_seconds)
        most = throughput(timer, batches=batches, seconds=seconds, rng=np.random.default_rng(0)).best
    if most is not None:
        found["throughput_per_s"] = Measurement(value=most.samples_per_s, unit="1/s", n=len(most.samples))
        found["best_batch"] = Measurement(value=float(most.batch), n=len(most.samples))
    return found


def _make(prepared: Prepared, assignment: Mapping[str, LayerSpec], format: str, out: Path, *, point: str) -> Path:
    """Export, load in a fresh process, measure, and only then write the manifest."""
    shop = Workshop(prepared)
    main = shop.export(assignment, format, out)
    with tempfile.TemporaryDirectory(prefix="paredown-") as folder:
        original = shop.export({}, format, Path(folder) / "original")
        artifacts = {REFERENCE: original, "artifact": main.resolve()}
        runtime = runtime_for(format, prepared.task)
        found = shop.measure(artifacts, runtime=runtime, folder=Path(folder) / "fresh")["artifact"]
        if found.reason is not None:
            raise ParedownError(f"the export does not run: {found.reason}")
        _, plain, _, anatomy = shop.left(assignment)
        totals = prepared.devices[0].whole(anatomy, plain)
        claims = static_measurements(totals, prepared.task.hardware.grid_g_per_kwh)  # all of them modelled
        claims |= judge_loaded(prepared, shop.reference, found)[0]
        claims["bytes"] = Measurement(value=float(shop.stored_bytes(assignment, Path(folder))), unit="B")
    claims["file_bytes"] = Measurement(
        value=float(sum(f.stat().st_size for f in out.rglob("*") if f.is_file())), unit="B"
    )
    write_artifact(
        out,
        main=main,
        prepared=prepared,
        assignment=assignment,
        claims=claims,
        point=point,
        format=format,
        facts=found.facts,
    )
    return out


def _check_model(task: Task, model: nn.Module | None, format: str) -> None:
    """Raises `InputError` where a fresh process would have no model, or nothing to build it with."""
    if model is None and task.model is None:
        raise InputError(
            "the model was handed in from Python and the task names none: do this from Python too, with model=, or "
            "name it in the task's [model]"
        )
    if model is not None and format == "paredown":
        raise InputError(
            "the format 'paredown' holds weights only, and a fresh process cannot build a model that was handed in "
            "from Python; take 'pt2' or 'onnx', or name the model's factory in the task's [model]"
        )


def _checks(
    claims: Mapping[str, Measurement], measured: Mapping[str, Measurement], quality: str
) -> list[dict[str, Any]]:
    checks: list[dict[str, Any]] = [{"name": "files", "ok": True, "detail": "every file matches its checksum"}]
    if quality in claims:
        claim, now = claims[quality].value, measured[quality].value
        apart = abs(claim - now) / max(abs(claim), 1e-12)
        checks.append(
            {"name": quality, "ok": apart <= QUALITY_TOLERANCE, "detail": f"claimed {claim:.6g}, measured {now:.6g}"}
        )
    if "latency_ms" in measured and "latency_ms" in claims and claims["latency_ms"].source == "measured":
        claim, now = claims["latency_ms"].value, measured["latency_ms"].value
        close = abs(claim - now) <= LATENCY_TOLERANCE * claim
        detail = f"claimed {claim:.4g} ms, measured {now:.4g} ms" + (
            "" if close else "; another machine, or a busy one"
        )
        checks.append({"name": "latency_ms", "ok": True, "detail": detail})
    return checks


def _is_id(expression: str) -> bool:
    return expression.startswith("t") and expression[1:].isdigit()


def _check_empty(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not empty; choose another --out")


def _empty_folder(out: Path) -> Path:
    _check_empty(out)
    out.mkdir(parents=True, exist_ok=True)
    return out
