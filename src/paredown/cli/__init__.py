"""The command line. Only `main` is public. Nothing heavy is imported before a command needs it.

It knows all of `paredown.search`. Begin with `_app.py`, which lists the commands. A new command is a function in a
file here, and a name in that list.
"""

from ._main import main

__all__ = ["main"]
