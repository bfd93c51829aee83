"""The command line. Only `main` is public; nothing heavy is imported before a command needs it."""

from ._main import main

__all__ = ["main"]
