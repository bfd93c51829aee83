"""The address of an SQLite file, and the file of such an address.

SQLAlchemy reads the address, and its versions differ: from 2.1 on the path is percent-decoded, before that it is not.
So an address is built, and then read back with the installed version.
"""

from __future__ import annotations

from pathlib import Path, PurePath
from urllib.parse import quote

from ...errors import InputError

_PLAIN = "sqlite:///"
_WITH_DRIVER = "sqlite+pysqlite:///"
"""The same dialect. MLflow makes the parent folder of a plain address without decoding it: a stray folder."""


def sqlite_uri(file: PurePath) -> str:
    """Build the address of an SQLite file, given by its absolute path on this or another system.

    A path of plain characters stays as it is; spaces, `#`, `?`, `%` and the like are percent-encoded.
    Raises `InputError` for a path that the installed SQLAlchemy cannot be told.
    """
    path = file.as_posix()
    quoted = quote(path, safe="/:")
    for uri in (f"{_PLAIN}{quoted}" if quoted == path else f"{_WITH_DRIVER}{quoted}", f"{_PLAIN}{path}"):
        if _database(uri) == path:
            return uri
    raise InputError(
        f"MLflow's store cannot be at {path!r}: this version of SQLAlchemy reads no such path from an address; "
        "set MLFLOW_TRACKING_URI, or choose a folder without '?'"
    )


def sqlite_file(uri: str) -> Path | None:
    """Find the file of an SQLite address.

    None for another store, for one in memory, and for SQLite's own `file:` addresses.
    """
    if not uri.startswith(("sqlite:", "sqlite+")):
        return None
    path = _database(uri)
    return None if path in (None, "", ":memory:") or path.startswith("file:") else Path(path)


def same_store(a: str, b: str) -> bool:
    """Tell whether two addresses lead to one store: they are equal, or SQLite addresses of one file."""
    return a == b or (sqlite_file(a) is not None and sqlite_file(a) == sqlite_file(b))


def _database(uri: str) -> str | None:
    from sqlalchemy import make_url

    return make_url(uri).database
