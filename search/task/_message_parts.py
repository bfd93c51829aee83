"""Parts of messages about weights: lists cut short, shapes, errors of others on one line."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 4
"""The most names that a message lists."""


def some(items: Sequence[str], separator: str = ", ") -> str:
    """The first few of them, and the number of the others."""
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return separator.join(items[:SHOWN]) + more


def shape_text(shape: Sequence[int]) -> str:
    """A shape as `(2, 3)`; `()` for a scalar."""
    return f"({', '.join(map(str, shape))})"


def one_line(error: BaseException) -> str:
    """The text of an error on one line, or its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
