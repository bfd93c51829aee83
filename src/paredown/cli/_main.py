"""Entry point: an argument list becomes an exit code, and every error becomes one line on stderr."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import traceback
from collections.abc import Sequence

import typer

from ..errors import Interrupted, ParedownError
from ._app import app

_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]
"""Error that typer raises for arguments that it cannot parse. typer exports only a leaf of this tree."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    0 done; 1 failed; 2 bad input; 3 nothing met the limits; 130 interrupted. Every error is one line on stderr:
    `paredown: …`. For an unexpected error the traceback is written to a file, and the line names the file. With
    `--debug` (anywhere before a `--`) or `PAREDOWN_DEBUG=1` every traceback is printed.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    arguments, debug = _take_debug(given)
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="paredown", standalone_mode=False)
    except ParedownError as error:
        return _fail(str(error), error.exit_code, debug)
    except _USAGE_ERROR as error:
        return _fail(_usage(error), 2, debug)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", Interrupted.exit_code, debug)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except Exception as error:  # the last resort: a person gets one line, and the way to the traceback
        return _fail(_unexpected(error, debug), 1, debug)
    return code if isinstance(code, int) else 0


def _take_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """Remove `--debug` from the arguments; also tell if it was there (or PAREDOWN_DEBUG is set)."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    debug = "--debug" in arguments[:end] or os.environ.get("PAREDOWN_DEBUG", "0") not in ("", "0")
    return [a for i, a in enumerate(arguments) if a != "--debug" or i >= end], debug


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    line = re.sub(r"\s*\n\s*", " ", message.strip())  # spaces inside a line may belong to a path
    print(f"paredown: {line}", file=sys.stderr)
    return code


def _usage(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "paredown"
    message = error.format_message().rstrip(".") if hasattr(error, "format_message") else str(error)
    return f"{message[:1].lower()}{message[1:]}; `{command} --help` lists the arguments and options"


def _unexpected(error: Exception, debug: bool) -> str:
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if debug:
        return f"unexpected {reason}"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="paredown-", suffix=".log", delete=False, encoding="utf-8"
        ) as file:
            traceback.print_exc(file=file)
    except OSError as problem:
        return f"unexpected {reason} (the traceback could not be written: {problem}; see it with --debug)"
    return f"unexpected {reason} (traceback in {file.name}, or on the terminal with --debug)"
