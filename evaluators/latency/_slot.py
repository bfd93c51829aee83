"""Lock for one latency measurement a device at a time, over all processes of the machine."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import InputError, ParedownError

POLL_S = 0.05


@contextmanager
def exclusive_slot(
    device: str = "cpu", *, timeout_s: float | None = None, folder: Path | None = None
) -> Iterator[Path]:
    """Wait for the device's slot, and hold it inside. Yields the lock's file.

    device     a name: letters, digits, `.`, `_`, `-`
    timeout_s  how long to wait; None: as long as it takes. Then `ParedownError`
    folder     where the lock lies: the system's folder for temporary files, so that other users' runs wait too

    The kernel holds the lock (`flock`), so it is free when its process ends, however that ends; the file stays. Not
    re-entrant: a second slot for the same device inside the first waits for ever. Without `flock` nothing is locked.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]+", device):
        raise InputError(f"a device's name must be letters, digits, '.', '_' or '-', got {device!r}")
    path = (folder or Path(tempfile.gettempdir())) / f"paredown-latency-{device}.lock"
    if sys.platform == "win32":
        yield path
        return
    import fcntl

    descriptor = _open(path)
    try:
        _acquire(descriptor, path, device, timeout_s)
        try:
            yield path
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked child may hold the file open still
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    """Open for reading only. `flock` needs no more, so another user's file works too; no link is followed."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            pass
        try:
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            continue  # another process made it just now


def _acquire(descriptor: int, path: Path, device: str, timeout_s: float | None) -> None:
    import fcntl

    start = time.monotonic()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        if timeout_s is not None and time.monotonic() - start >= timeout_s:
            raise ParedownError(
                f"another process has measured latency on {device!r} for more than {timeout_s:g} s (lock {path}); "
                "wait until it is done, or end it"
            )
        time.sleep(POLL_S)
