"""Printed commands: what a shell makes of them is what was meant."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from paredown._command import command
from paredown.cli._app import app

PACKAGE = [Path(folder) for folder in ("search", "compressors", "evaluators", "hardware_profiles", "src/paredown")]

COMMANDS = [str(known.name or known.callback.__name__) for known in app.registered_commands if known.callback]


@pytest.mark.parametrize(
    "path", ["runs/r1", "my runs #1 50%20?/r1", "it's", 'a "b"', "$HOME `id` \\x", "two  spaces", "é*;&|<>!~[x]{y}"]
)
def test_a_shell_reads_the_words_that_were_meant(path: str) -> None:
    assert shlex.split(command("resume", Path(path), "--json")) == ["paredown", "resume", str(Path(path)), "--json"]


def test_a_plain_path_stays_readable() -> None:
    assert command("resume", Path("runs/2026-01-01_a")) == "paredown resume runs/2026-01-01_a"


def test_a_path_is_never_an_option() -> None:
    assert command("front", Path("-run"), "--all") == "paredown front ./-run --all"


def test_no_message_pastes_a_value_into_a_command() -> None:
    root = Path(__file__).parents[1]
    of_values = re.compile(rf"paredown ({'|'.join(COMMANDS)}) [^`\n]*\{{")
    pasted = [
        f"{path}:{node.lineno}"
        for folder in PACKAGE
        for path in sorted((root / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.JoinedStr) and of_values.search(_template(node))
    ]
    assert pasted == []


def _template(string: ast.JoinedStr) -> str:
    """The text of an f-string, with `{` for each value, and nothing for a call of `command`."""
    return "".join(
        part.value if isinstance(part, ast.Constant) else "" if _is_command(part) else "{" for part in string.values
    )


def _is_command(part: ast.expr) -> bool:
    value = part.value if isinstance(part, ast.FormattedValue) else None
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "command"
