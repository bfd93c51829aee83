"""Commands that search: `search` begins a run, and `resume` continues one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._command import command
from ..errors import Interrupted, LimitsNotMet, NothingVerified
from . import _console as console
from ._options import Json, RayAddress, RunFolder, Workers
from ._run_commands import show_front
from ._signals import terminated_as_interrupted

if TYPE_CHECKING:
    from ..search import Front


class Children(StrEnum):
    """Points that get an MLflow run of their own."""

    pareto = "pareto"
    all = "all"
    none = "none"


def search(
    task: Annotated[
        Path | None,
        typer.Argument(metavar="TASK.toml", help="Default: the embedded handwritten digits.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the run. Default: runs/NAME-DATE.", show_default=False),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Number of mixed candidates to try.", show_default=False)] = None,
    budget: Annotated[str | None, typer.Option(help="Time to spend: 90s, 30m, 2h.", show_default=False)] = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
    searcher: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="evolution, genetic, policy, random, or a sampler of Optuna's: tpe, nsga2, nsga3, gp, qmc, or its "
            "class or import path. `paredown methods searcher` tells about each.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random choice.", show_default=False)] = None,
    mlflow_children: Annotated[
        Children | None, typer.Option(help="Points that get an MLflow run of their own.", show_default=False)
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "-o", metavar="TABLE.KEY=VALUE", help="Change a key of the task. May be repeated.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Search for compressed forms of a model, and print the verified front.

    It can be stopped at any time (Ctrl-C, a kill): `paredown resume RUN` continues it.

    `paredown methods` lists every searcher, method, score, pattern, format, runtime and metric that a task can name.

    MLflow, Ray and OpenVINO send no telemetry.
    """
    from ..search import Task
    from ..search import search as run_search
    from ..search.run import new_run_path

    chosen = [
        _setting("budget.trials", trials),
        _setting("budget.time", budget),
        _setting("search.searcher", searcher),
        _setting("search.seed", seed),
        _setting("mlflow.children", mlflow_children),
    ]
    settings = [setting for setting in chosen if setting is not None] + (override or [])
    loaded = Task.load(task or _default_task())
    loaded = loaded.with_overrides(settings) if settings else loaded
    run = out or new_run_path(loaded)
    with _working(run, as_json) as progress:
        front = run_search(loaded, out=run, workers=workers, ray_address=ray_address, progress=progress)
    _finish(front, run, as_json)


def resume(run: RunFolder, workers: Workers = None, ray_address: RayAddress = None, as_json: Json = False) -> None:
    """Continue a run that was stopped or killed. Only its folder is needed."""
    from ..search import resume as resume_search

    with _working(run, as_json) as progress:
        front = resume_search(run, workers=workers, ray_address=ray_address, progress=progress)
    _finish(front, run, as_json)


def _default_task() -> Path:
    from ..digits import TASK_PATH

    console.say("no task given: searching the embedded handwritten digits")
    return TASK_PATH


def _setting(key: str, value: Any) -> str | None:
    """Write an override in TOML's notation (a JSON string or integer is one); None if no value was given."""
    return None if value is None else f"{key}={json.dumps(value, ensure_ascii=False)}"


@contextmanager
def _working(run: Path, as_json: bool) -> Iterator[Any]:
    """Show progress. After an interrupt, say how to continue. Where no point met the limits or none was verified, the
    front is still shown.
    """
    from ._progress import display

    console.say(f"run: {run}")
    try:
        with terminated_as_interrupted(), display(f"paredown · {run}") as progress:
            yield progress
    except KeyboardInterrupt:
        known = (run / "task.json").is_file()  # else it was stopped before there was anything to continue
        how = f"; to continue: {command('resume', run)}" if known else ""
        raise Interrupted(f"interrupted{how}") from None
    except (LimitsNotMet, NothingVerified):
        from ..search import open_run

        reached = open_run(run).front() if (run / "task.json").is_file() else None
        if reached is not None and reached.points:
            show_front(reached, as_json)
        raise


def _finish(front: Front, run: Path, as_json: bool) -> None:
    show_front(front, as_json)
    if "knee" in front.picks:
        console.say(f"next: {command('explain', run, 'knee')}")
        console.say(f"      {command('export', run, '--point', 'knee', '--format', 'onnx', '--out', 'DIR')}")
    console.say(f"      {command('ui', run)}")
