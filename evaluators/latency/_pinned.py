"""Run on chosen cores."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ...errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinning:
    """Which cores were asked for, and which were got: () where the system cannot pin."""

    asked: tuple[int, ...]
    got: tuple[int, ...]

    @property
    def is_pinned(self) -> bool:
        return bool(self.got) and set(self.got) == set(self.asked)


@contextmanager
def pinned(cores: int | Sequence[int] | None = None) -> Iterator[Pinning]:
    """The calling thread, and the threads it starts, run on `cores` (None: the last one that this process may use).

    Threads that run already (a pool that was used before) stay where they are: pin before the runtime is loaded. At the
    end the thread may run where it could before. Does nothing where the system has no `sched_setaffinity`.
    Raises `InputError` for a core that this process may not use.
    """
    if sys.platform != "linux":
        yield Pinning(asked=_as_tuple(cores), got=())
        return
    before = os.sched_getaffinity(0)
    asked = _as_tuple(cores) if cores is not None else (max(before),)
    if not asked or not set(asked) <= before:
        raise InputError(
            f"cannot pin to core {', '.join(map(str, asked)) or '(none given)'}: this process may use "
            f"{', '.join(map(str, sorted(before)))}"
        )
    os.sched_setaffinity(0, asked)
    try:
        yield Pinning(asked=asked, got=tuple(sorted(os.sched_getaffinity(0))))
    finally:
        os.sched_setaffinity(0, before)


def last_cores(n: int) -> list[int] | None:
    """The last `n` cores that this process may use; None where the system does not say."""
    return sorted(os.sched_getaffinity(0))[-n:] if sys.platform == "linux" else None


def _as_tuple(cores: int | Sequence[int] | None) -> tuple[int, ...]:
    if cores is None:
        return ()
    return (cores,) if isinstance(cores, int) else tuple(cores)
