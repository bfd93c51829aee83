"""NUMA: nodes of a machine whose memory is not equally near to all cores.

Linux alone tells. A system that says nothing has one node, as far as can be known here.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SYSTEM = Path("/sys/devices/system")

_SET, _GET = {"x86_64": (238, 239), "aarch64": (237, 236)}.get(platform.machine(), (None, None))
"""Numbers of the system calls `set_mempolicy` and `get_mempolicy`, for which the C library has no function."""
_BIND = 2
"""MPOL_BIND: pages come from these nodes or not at all."""
_N_NODES = 1024
_Mask = ctypes.c_ulong * (_N_NODES // (8 * ctypes.sizeof(ctypes.c_ulong)))


def numa_node(core: int, system: Path = SYSTEM) -> int | None:
    """NUMA node of a core; None where the system does not say (there may be one node only, or no /sys)."""
    nodes = sorted((system / "cpu" / f"cpu{core}").glob("node[0-9]*"))
    return int(nodes[0].name.removeprefix("node")) if nodes else None


def numa_nodes(system: Path = SYSTEM) -> list[int]:
    """NUMA nodes of the machine; empty where the system does not say."""
    return sorted(int(path.name.removeprefix("node")) for path in (system / "node").glob("node[0-9]*"))


def cores_of_one_node(n: int, allowed: Sequence[int], system: Path = SYSTEM) -> list[int]:
    """Last `n` of the allowed cores that share a node; where no node has so many, the last `n` of all.

    Of several nodes that have them, the one with the last core: the first cores are the system's own favourites.
    """
    nodes: dict[int | None, list[int]] = {}
    for core in sorted(allowed):
        nodes.setdefault(numa_node(core, system), []).append(core)
    large = [cores for cores in nodes.values() if len(cores) >= n]
    return (max(large, key=lambda cores: cores[-1]) if large else sorted(allowed))[-n:]


@contextmanager
def memory_from(node: int) -> Iterator[bool]:
    """Take new pages of this thread, and of threads that it starts, from the node inside the block. Yields whether it
    works.

    False where the system refuses it, as many containers do; pages then come from the node of the core that first
    writes them, which is the same one as long as it has room. Pages that are there already stay where they are.
    """
    before = _policy()
    if before is None or not 0 <= node < _N_NODES:
        yield False
        return
    mask, width = _Mask(), 8 * ctypes.sizeof(ctypes.c_ulong)
    mask[node // width] = 1 << node % width
    bound = _set_policy(_BIND, mask)
    try:
        yield bound
    finally:
        if bound:
            _set_policy(*before)


def _policy() -> tuple[int, ctypes.Array[ctypes.c_ulong]] | None:
    """Mode and nodes of this thread; None where they cannot be read."""
    if sys.platform != "linux" or _GET is None:
        return None
    mode, mask = ctypes.c_int(), _Mask()
    # no nodes are given back by the kernel for a policy that has none
    failed = _call(_GET, ctypes.byref(mode), mask, ctypes.c_ulong(_N_NODES), None, ctypes.c_ulong(0))
    return None if failed else (mode.value, mask)


def _set_policy(mode: int, mask: ctypes.Array[ctypes.c_ulong]) -> bool:
    # the kernel reads one bit less than it is told of
    given = mask if any(mask) else None
    return not _call(_SET, ctypes.c_int(mode), given, ctypes.c_ulong(_N_NODES if given is not None else 0))


def _call(number: int | None, *arguments: object) -> int:
    result: int = ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number or 0), *arguments)
    return result
