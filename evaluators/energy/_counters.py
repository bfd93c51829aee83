"""Energy counters that the system provides: RAPL of x86 packages, NVML of NVIDIA's GPUs.

Both count all consumption of the package or card, whoever caused it. They describe a model only on a machine that does
nothing else. Reading RAPL needs root on most systems since 2020 (CVE-2020-8694); a virtual machine has none.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

RAPL_ROOT = Path("/sys/class/powercap")
_NVML = "libnvidia-ml.so.1"
_MJ_PER_UJ = 1e-3


class Counter(Protocol):
    """Energy counter. name: the counted part, for people."""

    @property
    def name(self) -> str: ...

    def read_mj(self) -> float:
        """Read millijoules since a fixed but unknown moment."""
        ...


@dataclass(slots=True)
class RaplCounter:
    """Counter of one package in /sys/class/powercap.

    It starts again from 0 at `max_energy_range_uj`. A reading below the last one means that it has wrapped around once,
    so read it at least every few minutes.
    """

    folder: Path
    _last_uj: int = 0
    _turns: int = 0

    @property
    def name(self) -> str:
        return f"RAPL {(self.folder / 'name').read_text(encoding='ascii').strip()}"

    def read_mj(self) -> float:
        now = int((self.folder / "energy_uj").read_text(encoding="ascii"))
        if now < self._last_uj:
            self._turns += 1
        self._last_uj = now
        span = int((self.folder / "max_energy_range_uj").read_text(encoding="ascii"))
        return (self._turns * span + now) * _MJ_PER_UJ


class NvmlCounter:
    """Counter of a GPU's total energy since the driver was loaded, in steps of 1 mJ (Volta and later)."""

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self._library: Any = ctypes.CDLL(_NVML)
        self._device = ctypes.c_void_p()
        self._call("nvmlInit_v2")
        self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(self._device))
        self.read_mj()  # a card that has no counter says so now

    @property
    def name(self) -> str:
        return f"NVML GPU {self.index}"

    def read_mj(self) -> float:
        value = ctypes.c_ulonglong()
        self._call("nvmlDeviceGetTotalEnergyConsumption", self._device, ctypes.byref(value))
        return float(value.value)

    def _call(self, function: str, *args: Any) -> None:
        """Call a function of NVML. Raises `OSError` with NVML's own number."""
        code = getattr(self._library, function)(*args)
        if code:
            raise OSError(f"{function} failed with NVML error {code}")


def rapl_counters(root: Path = RAPL_ROOT) -> list[RaplCounter]:
    """One counter for each package whose counter is readable; the package's parts (cores, memory) are included in
    it.
    """
    found = []
    for folder in sorted(root.glob("intel-rapl:*")):
        if folder.name.count(":") != 1:
            continue
        counter = RaplCounter(folder)
        try:
            if not counter.name.startswith("RAPL package"):
                continue  # "psys" is the whole system, packages included
            counter.read_mj()
        except (OSError, ValueError):  # it is not ours to read, or there is nothing in it
            continue
        found.append(counter)
    return found


def counters_here(device: str = "cpu", *, root: Path = RAPL_ROOT) -> Sequence[Counter]:
    """Counters readable here for a "cpu" (all packages) or a "gpu" (the first); empty if there is none."""
    if device == "cpu":
        return rapl_counters(root)
    try:
        return [NvmlCounter()]
    except (OSError, AttributeError):  # no driver, no card, or one without a counter
        return []
