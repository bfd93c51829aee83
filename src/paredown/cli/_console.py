"""Output: data goes to stdout, everything else goes to stderr."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PIPE_WIDTH = 200
"""Width of a table that is not written to a terminal, if COLUMNS is not set."""


def out() -> Console:
    """Make a console on the present stdout. rich respects NO_COLOR and writes no colour into a pipe."""
    return _console(sys.stdout)


def err() -> Console:
    """Make a console on the present stderr."""
    return _console(sys.stderr)


def _console(stream: Any) -> Console:
    from rich.console import Console

    width = None if stream.isatty() else shutil.get_terminal_size((PIPE_WIDTH, 24)).columns
    return Console(file=stream, width=width, highlight=False, emoji=False, soft_wrap=False)


def show(*renderables: RenderableType) -> None:
    """Print data for people on stdout."""
    console = out()
    for renderable in renderables:
        console.print(renderable)


def say(text: str) -> None:
    """Print a note on stderr as plain text. Nothing in it is markup or wrapped: commands can be copied."""
    err().print(text, markup=False, soft_wrap=True)


def show_json(data: object) -> None:
    """Print one strict JSON document (no NaN) on stdout, for programs."""
    print(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))
