"""The ledger: the one truth of a run. The Optuna study, MLflow and the pages can be rebuilt from it.

One record a line: length and CRC-32 of the payload in hexadecimal, then the payload as JSON.
`append` returns once the record is on the disk. A torn last line, which is what a kill leaves, is cut off when the
file is opened; a damaged line anywhere else is refused by its number.

The format has a version (`_schema.py`). The record "started", at the beginning of each session, carries it, and so
does "facts". A ledger of a newer format is refused; one that carries no version is of version 1 and is read.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError, IntegrityError

_PREFIX = 18  # "%08x %08x "


def encode(record: Mapping[str, Any]) -> bytes:
    """Return a record as one line with its newline. Raises `ValueError` for a number that is not finite."""
    payload = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
    return _prefix(payload) + payload + b"\n"


def decode(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line without its newline; None if the line is not whole."""
    payload = line[_PREFIX:]
    if line[:_PREFIX] != _prefix(payload):
        return None
    record = json.loads(payload)
    return record if isinstance(record, dict) else None


def _prefix(payload: bytes) -> bytes:
    return b"%08x %08x " % (len(payload), zlib.crc32(payload))


def read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return all whole records, and the number of bytes that they fill. A torn last line may follow.

    Raises `IntegrityError` for a damaged line that is not the torn end.
    """
    data = path.read_bytes()
    records: list[dict[str, Any]] = []
    end = 0
    for number, line in enumerate(data.split(b"\n"), 1):
        complete = end + len(line) < len(data)  # a newline follows
        record = decode(line) if complete else None
        if record is None:
            if data[end:].strip(b"\0") and complete:
                raise IntegrityError(
                    f"line {number} of {path} does not match its checksum; the file was changed after it was written. "
                    "Put back a copy of it, or start a new run in another folder"
                )
            break
        records.append(record)
        end += len(line) + 1
    return records, end


class Ledger:
    """A ledger that is open for appending, by one process at a time.

    records  all records, old and new, in order

    Raises `InputError` if another process has it open, `IntegrityError` if it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise InputError(
                f"{path.parent} is in use by another paredown process; wait for it, or stop it first"
            ) from None
        self.records, end = read(path)
        if end < path.stat().st_size:
            os.ftruncate(self._file, end)
            os.fsync(self._file)
        _sync_folder(path.parent)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record; returns when it is on the disk."""
        line = encode(record)
        if os.write(self._file, line) != len(line):
            raise OSError(f"{self.path}: the disk took only a part of a record; is it full?")
        os.fsync(self._file)
        self.records.append(dict(record))

    def close(self) -> None:
        """Close the file and let other processes write. Closing twice does nothing."""
        if self._file >= 0:
            os.close(self._file)  # drops the lock
            self._file = -1

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _sync_folder(folder: Path) -> None:
    with _opened(folder) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write to a neighbour and rename it, so that a reader sees the old file or the new one, never a half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
