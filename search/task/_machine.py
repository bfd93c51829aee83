"""The machine and the installed packages, read without importing any of them and without the network."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

CORE = (
    "paredown", "torch", "numpy", "safetensors", "pydantic", "optuna", "ray", "mlflow", "scikit-learn", "matplotlib",
    "typer", "rich",
)  # fmt: skip
"""Distributions that the main job needs."""

EXTRAS = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino", "onnx", "onnxscript"),
    "plotly": ("plotly",),
    "huggingface": ("transformers",),
    "structure": ("torch-pruning",),
    "executorch": ("executorch",),
}
"""Extra -> distributions. `pip install 'paredown[EXTRA]'` gets them."""

ISA = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "sve")
"""Instruction sets that decide which number formats run natively, by the names in /proc/cpuinfo."""


def version_of(distribution: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def environment() -> dict[str, Any]:
    """JSON-ready: packages, Python, platform, processor, cores, memory, instruction sets.

    What cannot be found out here (no /proc, for example) is None or empty.
    """
    cpu = _cpuinfo()
    packages = dict.fromkeys([*CORE, *(name for names in EXTRAS.values() for name in names)])
    flags = f"{cpu.get('flags', '')} {cpu.get('Features', '')}".split()
    return {
        "packages": {name: version_of(name) for name in packages},
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "processor": cpu.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_bytes": _memory(),
        "architecture": platform.machine(),
        "instruction_sets": [name for name in ISA if name in flags],
    }


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo() -> dict[str, str]:
    """The first processor's lines."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _memory() -> int | None:
    """Return the memory in bytes, or the limit of the control group if that is less."""
    found = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text(encoding="utf-8").strip()).isdigit():
        found.append(int(text))
    return min(found, default=None)
