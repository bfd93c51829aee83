"""Commands in messages, as a person can paste them into a shell."""

from __future__ import annotations

import shlex
from pathlib import PurePath


def command(*words: str | PurePath) -> str:
    """Write a call of the command line: `command("resume", Path("my run"))` gives `paredown resume 'my run'`.

    A path that begins with a dash is written `./-…`, so that it is not taken for an option.
    """
    return shlex.join(["paredown", *map(_word, words)])


def _word(word: str | PurePath) -> str:
    text = str(word)
    return f"./{text}" if isinstance(word, PurePath) and text.startswith("-") else text
