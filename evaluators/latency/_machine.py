"""On what was measured: as the system and the runtime say it, not as it was asked for."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SYSTEM = Path("/sys/devices/system")


def machine_facts(session: object = None, *, threads: int, cores: Sequence[int] = ()) -> dict[str, Any]:
    """CPU, pinned cores, their NUMA nodes, the system's load, and the threads that `session` says it has.

    threads           as asked for
    runtime_threads   as the runtime reports them; absent where it does not
    """
    facts: dict[str, Any] = {
        "cpu": cpu_model(),
        "cores": list(cores),
        "numa_nodes": sorted({node for core in cores if (node := numa_node(core)) is not None}),
        "threads": threads,
        "load": _load(),
    }
    reported = getattr(session, "reported_threads", None)
    if callable(reported) and (n := reported()) is not None:
        facts["runtime_threads"] = int(n)
    return facts


def numa_node(core: int, system: Path = _SYSTEM) -> int | None:
    """The NUMA node of a core; None where the system does not say (there may be one node only, or no /sys)."""
    nodes = sorted((system / "cpu" / f"cpu{core}").glob("node[0-9]*"))
    return int(nodes[0].name.removeprefix("node")) if nodes else None


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux; Python's own word for it is less exact
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()


def caches_bytes(core: int = 0, system: Path = _SYSTEM) -> dict[str, int]:
    """`{"L1d": 49152, "L2": …}` of one core; shared caches at their whole size. Empty where the system does not say."""
    found: dict[str, int] = {}
    for index in sorted((system / "cpu" / f"cpu{core}" / "cache").glob("index[0-9]*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue  # some hypervisors leave files out
        name = f"L{level}" + {"Data": "d", "Instruction": "i"}.get(kind, "")
        unit = {"K": 1024, "M": 1024**2, "G": 1024**3}.get(size[-1:], 1)
        found[name] = int(size.rstrip("KMG")) * unit
    return found


def instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Of the vector and matrix extensions that kernels choose by."""
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
    """Mean number of running processes over 1, 5 and 15 minutes: whether others were at work."""
    import os

    try:
        return [round(x, 2) for x in os.getloadavg()]
    except (AttributeError, OSError):  # not on every system
        return []
