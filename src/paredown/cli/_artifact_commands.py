"""Commands that make artifacts, check them and compare them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._command import command
from . import _console as console
from ._options import Json, OutFolder, RunFolder


def export(
    run: RunFolder,
    out: OutFolder,
    point: Annotated[
        str,
        typer.Option(metavar="POINT", help='ID, knee, smallest, fastest, best, or "accuracy>=0.98,latency_ms<=0.5".'),
    ] = "knee",
    format: Annotated[
        str,
        typer.Option(
            help="paredown, onnx, openvino, pt2, config; for other devices tensorrt-onnx, compressed-tensors, "
            "torchao-config, executorch; or the format of your own runtime."
        ),
    ] = "paredown",
    entropy: Annotated[
        bool,
        typer.Option(
            "--entropy", help="Entropy-code the stored weights: fewer bytes, slower to load. Format paredown only."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a point as an artifact, and print its path."""
    from ..search import export_point

    path = export_point(run, point, format, out, entropy=entropy)
    _show_path(path, {"point": point, "format": format}, as_json)
    _say_what_next(path, format, run)


def apply(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG", help="Config: exported, planned, or written by hand.", show_default=False),
    ],
    task: Annotated[
        Path, typer.Option(metavar="TASK.toml", help="Task that names the model and data.", show_default=False)
    ],
    out: OutFolder,
    format: Annotated[
        str | None,
        typer.Option(
            help="As for export, without config. Default: the format of the task's runtime.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an artifact from a config, without a search, and print its path."""
    from ..search import apply_config

    path = apply_config(config, task, out, format=format, say=console.say)
    _show_path(path, {}, as_json)
    _say_what_next(path, format, task)


def verify(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="Folder that export or apply wrote.", show_default=False)
    ],
    task: Annotated[
        Path | None,
        typer.Option(
            metavar="TASK.toml|RUN",
            help="Task, or a run of it. Default: the artifact's own, if its code comes with paredown.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Load an artifact in a fresh process, measure it again, and compare the figures with its claims.

    Exit code 0: all claims hold. 1: a claim does not hold. 2: the artifact is damaged, or is none.
    """
    from ..search import verify_artifact

    result = verify_artifact(artifact, task=task)
    if as_json:
        console.show_json(result)
    else:
        from ._tables import rows_table

        console.show(rows_table(result["checks"]))
    console.say("all claims hold" if result["ok"] else "a claim does NOT hold: see the rows with ok = NO")
    if not result["ok"]:
        raise typer.Exit(1)


def _agreement(path: Path) -> str:
    """Parity with PyTorch, as it was measured when the artifact was written."""
    from ..search.artifacts import read_artifact

    return read_artifact(path).agreement


def _say_what_next(path: Path, format: str | None, task: Path) -> None:
    """Print what the format could not express, how it was checked, and how to check it again."""
    if format == "config":
        return
    from ..evaluators.runtimes.exports import EXPORTS, read_notes

    for fqn, what in read_notes(path).get("fallbacks", {}).items():
        console.say(f"{fqn}: {what}")
    export = EXPORTS.get(format or "")
    if export is not None and export.checked_by is None:
        console.say(f"{format} does not run here, so the artifact makes no claims; see docs/exports.md")
        return
    if agreement := _agreement(path):
        console.say(agreement)
    if export is not None:
        console.say(f"checked on {export.checked_by} here, not on its device; see docs/exports.md")
    console.say(f"to check it again: {command('verify', path, '--task', task)}")


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="Config, or folder of an artifact.", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="B", help="Config or artifact to compare it with.", show_default=False)],
    everything: Annotated[bool, typer.Option("--all", help="Also show layers that are the same.")] = False,
    as_json: Json = False,
) -> None:
    """Compare two configs or artifacts layer by layer: specs, bytes and weights."""
    from ..search import diff as compare

    found = compare(a, b)
    if as_json:
        console.show_json(found)
    else:
        from ._tables import diff_table

        console.show(diff_table(found, everything=everything))
    for note in found["notes"]:
        console.say(note)
    n = sum(not layer["same"] for layer in found["layers"])
    console.say("no layer differs" if not n else f"{n} of {len(found['layers'])} layers differ")


def _show_path(path: Path, more: dict[str, str], as_json: bool) -> None:
    if as_json:
        console.show_json({"path": str(path), **more})
    else:
        print(path)
