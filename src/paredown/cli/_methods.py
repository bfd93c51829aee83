"""The command `methods`: what a task can name, and a card of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated

import typer

from . import _console as console
from ._options import Json

if TYPE_CHECKING:
    from ..search import Method

WIDTH = 80
_NO_BREAK = "\u00a0"
_NAME, _FIELD = 24, 14
"""Columns of a name in the list, and of a field's name in a card."""
_FIELDS = (("does", "does"), ("cost", "cost"), ("good_for", "good for"), ("did_not_help", "did not help"),
           ("paper", "paper"))  # fmt: skip


def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Method, or a kind of methods. Default: the list of all.", show_default=False
        ),
    ] = None,
    task: Annotated[
        Path | None,
        typer.Option(metavar="TASK.toml", help="Task whose plugins are listed too.", show_default=False),
    ] = None,
    as_json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print every card as a page.")] = False,
) -> None:
    """List what a task can name; with NAME print its card: what it does, cost, good for, did not help, paper.

    Searchers, methods, scores, patterns, formats, runtimes, metrics, searchable levels. `paredown methods gptq` prints
    one card, `paredown methods metric` lists one kind.
    """
    from ..search import Task, list_methods
    from ..search.task import Plugins

    if task is not None:
        Plugins.of(Task.load(task)).load()
    found = list_methods(name)
    if as_json:
        console.show_json({"methods": [method.to_dict() for method in found]})
    elif markdown:
        print(as_page(found), end="")
    elif name is None or name in {method.kind for method in found}:
        print(as_list(found))
    else:
        print("\n\n".join(as_card(method) for method in found))


def as_list(found: Iterable[Method]) -> str:
    """Write methods kind by kind, a name and what it does, in 80 columns."""
    blocks = []
    for kind, group in groupby(found, key=lambda method: method.kind):
        rows = tuple(group)
        lines = [fill(f"{kind}: {_title(rows[0])}, by {rows[0].named_by}", WIDTH)]
        lines += [_hanging(f"  {row.name}", row.card.does, _NAME) for row in rows]
        blocks.append("\n".join(lines))
    blocks.append(fill("paredown methods NAME prints a card, or one kind of this list.", WIDTH))
    return "\n\n".join(blocks)


def as_card(method: Method) -> str:
    """Write one card in 80 columns."""
    facts = method.card.to_dict()
    lines = [fill(f"{method.name} ({method.kind}, by {method.named_by})", WIDTH), ""]
    lines += [_hanging(f"  {label}", facts[key], _FIELD + 2) for key, label in _FIELDS]
    return "\n".join(lines)


def as_page(found: Sequence[Method]) -> str:
    """Write every card as a Markdown page."""
    lines = [
        "# Methods", "",
        "<!-- Written by `paredown methods --markdown`; a test compares the two. Edit the cards (`_cards.py`). -->", "",
        "Everything that a task can name, with a card of each. `paredown methods` lists them in the terminal (with",
        "`--task`, those of the task's plugins too), `paredown methods NAME` prints a card, `--json` is for programs.",
        "\"not measured\" means that nothing here says where it does not help.", "",
    ]  # fmt: skip
    for kind, group in groupby(found, key=lambda method: method.kind):
        rows = tuple(group)
        lines += [f"## {_title(rows[0])}", "", f"Kind `{kind}`, by `{rows[0].named_by}`.", ""]
        for row in rows:
            facts = row.card.to_dict()
            lines += [f"### `{row.name}`", "", f"{facts['does']}.", ""]
            lines += [f"- **{label}**: {facts[key]}" for key, label in _FIELDS[1:]] + [""]
    return "\n".join(lines)


def _title(method: Method) -> str:
    from ..search import METHOD_KINDS

    return METHOD_KINDS[method.kind][0]


def _hanging(label: str, text: str, width: int) -> str:
    """Write text in the columns behind a label; a label that is too long has a line of its own."""
    indent = " " * width
    first = label.ljust(width) if len(label) < width else f"{label}\n{indent}"
    kept = text.replace(" %", f"{_NO_BREAK}%")
    body = fill(kept, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return first + body[width:].replace(_NO_BREAK, " ")
