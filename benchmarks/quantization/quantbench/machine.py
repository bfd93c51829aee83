"""Where a result was made."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch


def machine(threads: int) -> dict[str, Any]:
    return {"processor": _processor(), "threads": threads, "torch": torch.__version__}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
