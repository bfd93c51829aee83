"""The commands: what each takes and prints. The work is done by `paredown.search`, imported when a command runs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, Interrupted, LimitsNotMet, ParedownError
from . import _console as console
from ._profile import add_to as add_profile
from ._signals import terminated_as_interrupted

if TYPE_CHECKING:
    from ..search import Front, Resolution

app = typer.Typer(
    name="paredown",
    help="Search for compressed models: the Pareto front of models that run on your device, each point measured.",
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


_FAILURES_SHOWN = 5


class Schema(StrEnum):
    task = "task"
    config = "config"
    profile = "profile"


class Children(StrEnum):
    pareto = "pareto"
    all = "all"
    none = "none"


RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; docs/json.md lists its keys.")]
Workers = Annotated[
    int | None,
    typer.Option(min=0, help="Ray workers; 0 searches in this process. Default: the cores.", show_default=False),
]
RayAddress = Annotated[
    str | None,
    typer.Option(metavar="ADDR", help="A running Ray cluster; default: this machine.", show_default=False),
]
OutFolder = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write to.", show_default=False)]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Print the traceback of an error too; may stand anywhere.")
    ] = False,
) -> None:
    if version:
        from ..search._environment import version_of

        print(version_of("paredown") or "unknown (not installed)")
        raise typer.Exit
    if context.invoked_subcommand is None:
        with redirect_stdout(sys.stderr):  # typer prints rich help where `print` goes
            print(context.get_help())
        raise typer.Exit(2)


@app.command()
def search(
    task: Annotated[
        Path | None,
        typer.Argument(metavar="TASK.toml", help="Default: the embedded handwritten digits.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the run. Default: runs/NAME-DATE.", show_default=False),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Mixed candidates to try.", show_default=False)] = None,
    budget: Annotated[str | None, typer.Option(help="Time to spend: 90s, 30m, 2h.", show_default=False)] = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
    searcher: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="evolution, random, tpe, nsga2 or a sampler's import path.", show_default=False
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Every random choice comes from it.", show_default=False)] = None,
    mlflow_children: Annotated[
        Children | None, typer.Option(help="Which points get an MLflow run of their own.", show_default=False)
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "-o", metavar="TABLE.KEY=VALUE", help="Change a key of the task; may be repeated.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Search a model and print the verified front.

    Stop it at any time (Ctrl-C, a kill): `paredown resume RUN` goes on. MLflow, Ray and OpenVINO send no telemetry.
    """
    from ..search import Task
    from ..search import search as run_search
    from ..search._run import new_run_path

    chosen = [
        _setting("budget.trials", trials),
        _setting("budget.time", budget),
        _setting("search.searcher", searcher),
        _setting("search.seed", seed),
        _setting("mlflow.children", mlflow_children),
    ]
    settings = [setting for setting in chosen if setting is not None] + (override or [])
    loaded = Task.load(_default_task() if task is None else task)
    if settings:
        loaded = loaded.with_overrides(settings)
    run = new_run_path(loaded) if out is None else out
    with _working(run, as_json) as progress:
        front = run_search(loaded, out=run, workers=workers, ray_address=ray_address, progress=progress)
    _finish(front, run, as_json)


@app.command()
def resume(run: RunFolder, workers: Workers = None, ray_address: RayAddress = None, as_json: Json = False) -> None:
    """Go on with a run that was stopped or killed; needs nothing but its folder."""
    from ..search import resume as resume_search

    with _working(run, as_json) as progress:
        front = resume_search(run, workers=workers, ray_address=ray_address, progress=progress)
    _finish(front, run, as_json)


@app.command()
def status(run: RunFolder, as_json: Json = False) -> None:
    """What a run is doing, what it has spent, and the front so far."""
    from ..search import open_run

    opened = open_run(run)
    facts = opened.status()
    if as_json:
        console.show_json(facts)
        return
    from ._tables import facts_table, front_table, rows_table

    failures = facts.pop("failures", [])
    console.show(facts_table(facts))
    if failures:
        console.show(rows_table(failures[-_FAILURES_SHOWN:]))
    if len(failures) > _FAILURES_SHOWN:
        console.say(f"and {len(failures) - _FAILURES_SHOWN} earlier ones: paredown status {run} --json")
    front = opened.front()
    if front.points:
        console.show(front_table(front))


@app.command()
def front(
    run: RunFolder,
    everything: Annotated[bool, typer.Option("--all", help="Every completed trial and every metric.")] = False,
    as_json: Json = False,
) -> None:
    """The points, beside the original and the uniform baselines."""
    from ..search import open_run

    _show_front(open_run(run).front(all=everything), as_json, everything=everything)


@app.command()
def explain(
    run: RunFolder,
    point: Annotated[
        str, typer.Argument(metavar="POINT", help="As for export; any trial's id too.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Each layer of a point: what it got, what it costs, what it saves, how sensitive it is, which kernel ran."""
    from ..search import open_run
    from ..search._kernels import add_kernels

    opened = open_run(run)
    point_id = point if re.fullmatch(r"t\d+", point) else opened.front().pick(point).id
    layers = opened.explain(point_id)
    try:
        otherwise = add_kernels(opened, point_id, layers)
    except ParedownError as error:  # the runtime may not be here, where a run is only looked at
        otherwise = {}
        console.say(f"which kernels ran is not known: {error}")
    if as_json:
        console.show_json({"point": point_id, "layers": layers, "ran_otherwise": otherwise})
        return
    from ._tables import layers_table

    console.show(layers_table(layers))
    for fqn, what in otherwise.items():
        console.say(f"{fqn} {what}")
    console.say("sensitivity: divergence of the outputs with this layer alone at its level; weight error: ‖W-Ŵ‖²/‖W‖²")


@app.command()
def export(
    run: RunFolder,
    out: OutFolder,
    point: Annotated[
        str,
        typer.Option(metavar="POINT", help='ID, knee, smallest, fastest, best, or "accuracy>=0.98,latency_ms<=0.5".'),
    ] = "knee",
    format: Annotated[
        str, typer.Option(help="paredown, onnx, openvino, pt2, config, or the format of a runtime of yours.")
    ] = "paredown",
    as_json: Json = False,
) -> None:
    """Write a point as an artifact; prints its path."""
    from ..search import export_point

    path = export_point(run, point, format, out)
    _show_path(path, {"point": point, "format": format}, as_json)
    if format != "config":
        console.say(f"check it: paredown verify {path}")


@app.command()
def apply(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="A config: exported, or written by hand.", show_default=False)
    ],
    task: Annotated[
        Path, typer.Option(metavar="TASK.toml", help="The task that names the model and data.", show_default=False)
    ],
    out: OutFolder,
    as_json: Json = False,
) -> None:
    """Make an artifact from a config, without a search; prints its path."""
    from ..search import apply_config

    path = apply_config(config, task, out)
    _show_path(path, {}, as_json)
    console.say(f"check it: paredown verify {path}")


@app.command()
def verify(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="Folder that export or apply wrote.", show_default=False)
    ],
    task: Annotated[
        Path | None,
        typer.Option(
            metavar="TASK.toml", help="Default: the task that the artifact was made from.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Load an artifact in a fresh process, measure quality and latency again, and compare with what it claims.

    Exit code 0: it holds what it claims; 1: it does not; 2: it is damaged, or no artifact.
    """
    from ..search import verify_artifact

    result = verify_artifact(artifact, task=task)
    if as_json:
        console.show_json(result)
    else:
        from ._tables import rows_table

        console.show(rows_table(result["checks"]))
    console.say("holds what it claims" if result["ok"] else "does NOT hold what it claims")
    if not result["ok"]:
        raise typer.Exit(1)


@app.command()
def resolve(
    run: RunFolder,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIMIT",
            help='"bytes<=100000", "bytes<=25%" of the original, "accuracy>=0.98,latency_ms<=0.5"; may be repeated. '
            "Default: the run's own.",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(metavar="NAME|PATH", help="Another device: its hardware profile.", show_default=False),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(metavar="COST", help="Every budget of a cost: bytes, macs, bops, latency_ms.", show_default=False),
    ] = None,
    points: Annotated[int, typer.Option(min=2, help="Budgets of a sweep.")] = 20,
    out: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG.json", help="Write the config, for `paredown apply`.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """The best candidate within other limits, or for another device: in seconds, foreseen from the run's trials.

    Nothing is evaluated; the best evaluated trial within the same limits stands beside it.
    """
    from ..search import resolve as resolve_run

    if out is not None and sweep is not None:
        raise InputError("--out writes one config, and --sweep finds many; give the limits of one of them instead")
    found = resolve_run(run, limits=limit, profile=profile, sweep=sweep, points=points)
    if out is not None:
        from ..search._ledger import write_atomic

        write_atomic(out, json.dumps(dict(found.points[0].config), indent=2) + "\n")
    _show_resolution(found, as_json)
    if out is not None:
        console.say(f"next: paredown apply {out} --task TASK.toml --out DIR")


@app.command()
def ui(
    run: RunFolder,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Default: 5000, or a free one if that is taken.", show_default=False),
    ] = None,
) -> None:
    """MLflow's UI on 127.0.0.1, at the store that the run is mirrored to; prints its address. Ctrl-C ends it."""
    from ._ui import serve

    serve(run, port)


@app.command()
def doctor(as_json: Json = False) -> None:
    """What is installed, cores, instruction sets, runtimes, and what is missing and how to get it. Uses no network.

    Exit code 1 if something that paredown needs is missing or broken.
    """
    from ._doctor import examine

    report = examine()
    if as_json:
        console.show_json(report)
    else:
        from ._doctor import tables

        console.show(*tables(report))
    if not report["ok"]:
        console.say("paredown: " + "; ".join(report["problems"]))
        raise typer.Exit(1)


@app.command()
def schema(kind: Annotated[Schema, typer.Argument(help="Of which file.", show_default=False)]) -> None:
    """Print the JSON Schema of a task, a config or a hardware profile."""
    from ._schema import schema_of

    console.show_json(schema_of(kind.value))


add_profile(app)


def _default_task() -> Path:
    from ..digits import TASK_PATH

    console.say("no task given: searching the embedded handwritten digits")
    return TASK_PATH


def _setting(key: str, value: Any) -> str | None:
    """An override in TOML's notation (a JSON string or integer is one); None where nothing was given."""
    return None if value is None else f"{key}={json.dumps(value, ensure_ascii=False)}"


@contextmanager
def _working(run: Path, as_json: bool) -> Iterator[Any]:
    """The progress display; an interrupt says how to go on, and unmet limits still show the front."""
    from ._progress import display

    console.say(f"run: {run}")
    try:
        with terminated_as_interrupted(), display(f"paredown · {run}") as progress:
            yield progress
    except KeyboardInterrupt:
        known = (run / "task.json").is_file()  # else it was stopped before there was anything to go on with
        raise Interrupted(f"interrupted{f'; go on with: paredown resume {run}' if known else ''}") from None
    except LimitsNotMet:
        from ..search import open_run

        reached = open_run(run).front()
        if reached.points:
            _show_front(reached, as_json)
        raise


def _finish(front: Front, run: Path, as_json: bool) -> None:
    _show_front(front, as_json)
    if "knee" in front.picks:
        console.say(f"next: paredown explain {run} knee")
        console.say(f"      paredown export {run} --point knee --format onnx --out DIR")
    console.say(f"      paredown ui {run}")


def _show_front(front: Front, as_json: bool, *, everything: bool = False) -> None:
    if as_json:
        console.show_json(front.to_dict())
        return
    if not front.points:
        raise InputError(f"{front.run} has no points yet; `paredown status {front.run}` says how far it is")
    from ._tables import front_remarks, front_table

    console.show(front_table(front, everything=everything))
    for remark in front_remarks(front):
        console.say(remark)


def _show_resolution(found: Resolution, as_json: bool) -> None:
    if as_json:
        console.show_json(found.to_dict())
        return
    from ._resolution import remarks, resolution_table

    console.show(resolution_table(found))
    for remark in remarks(found):
        console.say(remark)


def _show_path(path: Path, more: dict[str, str], as_json: bool) -> None:
    if as_json:
        console.show_json({"path": str(path), **more})
    else:
        print(path)
