"""What was found out about this machine and a runtime on it: figures, each with its source and date. JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import InputError

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFigure:
    """A number with its unit, how it was come by, and when (ISO date)."""

    value: float
    unit: str
    source: str
    date: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFigure:
    """One layer in one form.

    operator, shape  `conv2d`, `64x8x8 k3`; see `_micro_graphs`
    form             `fp32`, `int8`, `w4` (4-bit weights alone), `2:4`, `zeros50`, `zeros90`, `rank25`
    ms               of one such layer, the session's own cost taken off
    speedup          over fp32, measured interleaved with it
    gmac_s           the dense layer's multiply-accumulates a second, in 10⁹
    kernel           what ran, by the runtime's own names; empty where the form could not be run
    note             why it could not
    """

    operator: str
    shape: str
    form: str
    ms: float | None
    speedup: float | None
    gmac_s: float | None
    kernel: str
    note: str = ""
    source: str = ""
    date: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFigures:
    """rates_gmac_s    "conv2d int8" -> the best that any shape reached
    bandwidth_gb_s  "copy 16 kB" -> bytes read and written a second, in 10⁹
    overhead_us     "kernel": what one more kernel in a graph costs; "session": what one call costs beside its kernels
    natively        form -> whether any layer ran faster in it than in fp32 by more than the tie, and in other kernels
    """

    cpu: str
    isa: tuple[str, ...]
    cores: tuple[int, ...]
    numa_nodes: tuple[int, ...]
    caches_bytes: Mapping[str, int]
    runtime: str
    runtime_version: str
    threads: int
    runtime_threads: int | None
    rates_gmac_s: Mapping[str, MachineFigure]
    bandwidth_gb_s: Mapping[str, MachineFigure]
    overhead_us: Mapping[str, MachineFigure]
    kernels: tuple[KernelFigure, ...]
    natively: Mapping[str, bool]
    seconds: float
    date: str
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        data = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in data.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MachineFigures:
        """The inverse of `to_dict`. Raises `InputError` naming a key that is unknown or missing, or the version."""
        known = {field.name for field in dataclasses.fields(cls)}
        for what, keys in (("unknown", set(data) - known), ("missing", known - set(data))):
            if keys:
                raise InputError(
                    f"{what} key {min(keys)!r} in a machine's figures; they have {', '.join(sorted(known))}"
                )
        if data["schema_version"] != SCHEMA_VERSION:
            raise InputError(f"schema_version must be {SCHEMA_VERSION}, got {data['schema_version']!r}")
        figures = ("rates_gmac_s", "bandwidth_gb_s", "overhead_us")
        try:
            made = {key: {name: MachineFigure(**figure) for name, figure in data[key].items()} for key in figures}
            kernels = tuple(KernelFigure(**kernel) for kernel in data["kernels"])
        except TypeError as error:
            raise InputError(f"a machine's figures: {error}") from error
        listed = {key: tuple(data[key]) for key in ("isa", "cores", "numa_nodes")}
        return cls(**{**data, **made, **listed, "kernels": kernels})
