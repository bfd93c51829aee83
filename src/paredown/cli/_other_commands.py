"""Commands around a search: MLflow's pages, the installation, the schemas."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from . import _console as console
from ._options import Json, RunFolder


class Schema(StrEnum):
    """Files that have a JSON Schema."""

    task = "task"
    config = "config"
    profile = "profile"


def ui(
    run: RunFolder,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Default: 5000, or a free one if that is taken.", show_default=False),
    ] = None,
) -> None:
    """Start MLflow's UI for a run on 127.0.0.1, and print its address. Ctrl-C ends it."""
    from ._ui import serve

    serve(run, port)


def doctor(as_json: Json = False) -> None:
    """Show what is installed, what is missing and how to get it; also cores, instruction sets and runtimes.

    It uses no network. Exit code 1: something that paredown needs is missing or broken.
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


def schema(kind: Annotated[Schema, typer.Argument(help="Kind of file.", show_default=False)]) -> None:
    """Print the JSON Schema of a task, a config or a hardware profile.

    The task's lists every name that it can hold as examples; `paredown methods` tells about each.
    """
    from ._schema import schema_of

    console.show_json(schema_of(kind.value))
