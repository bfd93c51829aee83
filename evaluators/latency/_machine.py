"""Facts about the measuring machine, from the system and the runtime, not from the request."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._numa import SYSTEM
from ._pinned import Pinning


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheFacts:
    """One cache as the system describes it: `L1d`, `L2`; its whole size, and the number of cores that share it."""

    name: str
    bytes: int
    shared_by: int


def machine_facts(session: object = None, *, threads: int, pinning: Pinning | None = None) -> dict[str, Any]:
    """CPU, pinned cores, their NUMA nodes, the system's load, and the threads that `session` reports.

    threads           as asked for
    memory_node       the node that memory was bound to, on a machine that has several; else None
    runtime_threads   as the runtime reports them; absent where it does not
    """
    facts: dict[str, Any] = {
        "cpu": cpu_model(),
        "cores": list(pinning.got) if pinning else [],
        "numa_nodes": list(pinning.nodes) if pinning else [],
        "memory_node": pinning.memory_node if pinning else None,
        "threads": threads,
        "load": _load(),
    }
    reported = getattr(session, "reported_threads", None)
    if callable(reported) and (n := reported()) is not None:
        facts["runtime_threads"] = int(n)
    return facts


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux; Python's own word for it is less exact
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()


def caches(core: int = 0, system: Path = SYSTEM) -> list[CacheFacts]:
    """Caches of one core, from the nearest outwards. Empty where the system does not describe them."""
    found: list[CacheFacts] = []
    for index in sorted((system / "cpu" / f"cpu{core}" / "cache").glob("index[0-9]*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue  # some hypervisors leave files out
        name = f"L{level}" + {"Data": "d", "Instruction": "i"}.get(kind, "")
        unit = {"K": 1024, "M": 1024**2, "G": 1024**3}.get(size[-1:], 1)
        found.append(CacheFacts(name=name, bytes=int(size.rstrip("KMG")) * unit, shared_by=_sharers(index)))
    return found


def _sharers(index: Path) -> int:
    """Number of cores in a cache's list (`0-3,8`); 1 where the system gives none."""
    try:
        spans = [part.partition("-") for part in (index / "shared_cpu_list").read_text().strip().split(",")]
        return sum(int(last or first) - int(first) + 1 for first, _, last in spans)
    except (OSError, ValueError):
        return 1


def memory_bytes() -> int | None:
    """Main memory of the machine in bytes; None where it is unknown."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Vector and matrix extensions of the CPU, by which kernels are chosen."""
    known = ("sse4_2", "avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
             "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "sve")  # fmt: skip
    try:
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.lower().startswith(("flags", "features")):
                flags = set(line.partition(":")[2].split())
                return [name for name in known if name in flags]
    except OSError:  # not Linux
        return []
    return []


def _load() -> list[float]:
    """Mean number of running processes over 1, 5 and 15 minutes, which shows other users' work."""
    try:
        return [round(x, 2) for x in os.getloadavg()]
    except (AttributeError, OSError):  # not on every system
        return []
