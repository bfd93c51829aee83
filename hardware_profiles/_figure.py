"""Figures with a source, and the bounds that no device breaks."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

DeviceKind = Literal["cpu", "gpu", "mcu", "npu"]


class Closed(BaseModel):
    """Base of the schema: it refuses unknown keys and numbers in quotes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Figure(Closed):
    """A positive number, and where it is from. The unit is in the name of the field that holds it."""

    value: float = Field(gt=0)
    kind: Literal["measured", "datasheet", "paper", "modelled"] = Field(
        description="measured: by whoever wrote the profile; datasheet: the maker says so; paper: somebody has "
        "measured and published it; modelled: an estimate, good for an order, and `source` says how it was made"
    )
    source: str = Field(min_length=1, description="who or what says so, so that it can be checked")
    date: Annotated[datetime.date, Field(strict=False)] = Field(
        description="of the measurement or the paper; else the day on which the figure was noted"
    )


BOUNDS: dict[str, tuple[float, float, str]] = {
    "bandwidth_gb_s": (1e-3, 5e4, "10⁹ bytes a second"),
    "bandwidth_all_gb_s": (1e-3, 5e4, "10⁹ bytes a second"),
    "caches.bandwidth_gb_s": (1e-2, 5e5, "10⁹ bytes a second"),
    "caches.bytes": (64, 1e11, "bytes"),
    "memory_bytes": (256, 1e15, "bytes"),
    "storage_bytes": (256, 1e17, "bytes"),
    "layer_overhead_us": (1e-3, 1e6, "microseconds"),
    "boundary_overhead_us": (1e-3, 1e6, "microseconds"),
    "scaling": (0.0, 1.0, "share of one core that each further core adds"),
    "efficiency": (0.0, 1.0, "share of the peak that good kernels reach"),
    "energy.pj_per_mac": (1e-3, 1e6, "picojoules a multiply-accumulate"),
    "energy.pj_per_byte": (1e-3, 1e6, "picojoules a byte"),
    "energy.idle_w": (1e-6, 1e4, "watts"),
    "alignment.channels": (2, 4096, "channels"),
    "operators.ms": (1e-6, 1e7, "milliseconds"),
}
"""Field -> the least and the greatest possible value, and the unit. The bounds are wide: they catch a wrong unit, not a
wrong figure."""

RATE_BOUNDS: dict[DeviceKind, tuple[float, float]] = {
    "cpu": (1e-3, 2e4), "gpu": (1e-2, 2e5), "mcu": (1e-6, 2e2), "npu": (1e-3, 5e6)
}  # fmt: skip
"""Bounds of one core, in 10⁹ multiply-accumulates a second. AMX reaches 3·10³, a streaming multiprocessor of Hopper
2·10⁴."""


def check(where: str, value: float, bounds: tuple[float, float], unit: str) -> None:
    """Refuse an impossible value with a `ValueError` that names the figure, the bound and the unit."""
    low, high = bounds
    if not low <= value <= high:
        broken = f"at least {low:g}" if value < low else f"at most {high:g}"
        raise ValueError(f"{where}: {value:g} cannot be: it must be {broken}; is it really in {unit}?")
