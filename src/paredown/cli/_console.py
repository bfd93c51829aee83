"""Where output goes: data to stdout, everything else to stderr."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PIPE_WIDTH = 200
"""Columns of a table that is not written to a terminal, where COLUMNS does not say."""


def out() -> Console:
    """A console on stdout as it is now. rich respects NO_COLOR and writes no colour into a pipe."""
    return _console(sys.stdout)


def err() -> Console:
    """A console on stderr as it is now."""
    return _console(sys.stderr)


def _console(stream: Any) -> Console:
    from rich.console import Console

    width = None if stream.isatty() else shutil.get_terminal_size((PIPE_WIDTH, 24)).columns
    return Console(file=stream, width=width, highlight=False, soft_wrap=False)


def show(*renderables: RenderableType) -> None:
    """Data for people, on stdout."""
    console = out()
    for renderable in renderables:
        console.print(renderable)


def say(text: str) -> None:
    """A remark, on stderr, as plain text: no markup, no wrapping, so that a path in it can be copied."""
    err().print(text, markup=False, soft_wrap=True)


def show_json(data: object) -> None:
    """Data for programs, on stdout: one JSON document, strict (no NaN)."""
    print(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))
