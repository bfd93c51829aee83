"""The application: `--help`, `--version` and the list of commands.

`paredown.search` does the work. It is imported when a command runs.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Annotated

import typer

from ._artifact_commands import apply, diff, export, verify
from ._methods import methods
from ._other_commands import doctor, schema, ui
from ._plan import plan
from ._profile import profile
from ._run_commands import explain, front, resolve, status
from ._search_commands import resume, search

app = typer.Typer(
    name="paredown",
    help="Search for compressed forms of a model. The result is the Pareto front of models that run on your device.",
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Also print the traceback of an error. May stand anywhere.")
    ] = False,
) -> None:
    if version:
        from ..search.task import version_of

        print(version_of("paredown") or "unknown (not installed)")
        raise typer.Exit
    if context.invoked_subcommand is None:
        with redirect_stdout(sys.stderr):  # typer prints rich help where `print` goes
            print(context.get_help())
        raise typer.Exit(2)


for _command in (
    search, resume, status, front, explain, export, apply, verify, diff, resolve, plan, profile, methods, ui, doctor,
    schema,
):  # fmt: skip
    app.command()(_command)  # in the order in which the help lists them
