"""Where a result was made."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

from paredown.evaluators.latency import instruction_sets


def machine(threads: int) -> dict[str, Any]:
    return {
        "processor": _processor(), "vnni": has_vnni(), "threads": threads, "torch": torch.__version__
    }  # fmt: skip


def has_vnni() -> bool:
    """Whether the processor adds products of 8 bits without an overflow in 16."""
    return any("vnni" in name for name in instruction_sets())


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
