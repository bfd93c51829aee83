"""Pinning to chosen cores, with memory that is near to them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ._numa import SYSTEM, cores_of_one_node, memory_from, numa_node, numa_nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinning:
    """Requested and obtained cores; the latter are () where the system cannot pin.

    nodes        NUMA nodes of the cores that were got; () where the system does not say
    memory_node  where the machine has several nodes and memory was bound to one: which. None else
    """

    asked: tuple[int, ...]
    got: tuple[int, ...]
    nodes: tuple[int, ...] = ()
    memory_node: int | None = None


@contextmanager
def pinned(cores: int | Sequence[int] | None = None, *, system: Path = SYSTEM) -> Iterator[Pinning]:
    """Run the calling thread, and the threads it starts, on `cores` (None: the last one that this process may use).

    Where the machine has several NUMA nodes and the cores are all of one, new memory comes from that node too. For
    several cores of one node ask `last_cores`.

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
        got = tuple(sorted(os.sched_getaffinity(0)))
        nodes = tuple(sorted({node for core in got if (node := numa_node(core, system)) is not None}))
        with ExitStack() as stack:
            several = len(numa_nodes(system)) > 1
            is_bound = several and len(nodes) == 1 and stack.enter_context(memory_from(nodes[0]))
            yield Pinning(asked=asked, got=got, nodes=nodes, memory_node=nodes[0] if is_bound else None)
    finally:
        os.sched_setaffinity(0, before)


def last_cores(n: int, *, system: Path = SYSTEM) -> list[int] | None:
    """Last `n` cores that this process may use, on one NUMA node where one has so many; None where the system does not
    say.
    """
    return cores_of_one_node(n, sorted(os.sched_getaffinity(0)), system) if sys.platform == "linux" else None


def _as_tuple(cores: int | Sequence[int] | None) -> tuple[int, ...]:
    if cores is None:
        return ()
    return (cores,) if isinstance(cores, int) else tuple(cores)
