"""Figures measured on this machine and a runtime on it, the basis of a hardware profile (`_machine_profile`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ._compare import Verdict
from ._machine import CacheFacts

SCHEMA_VERSION = 1
"""Schema version of `MachineFigures.to_dict`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFigure:
    """Number with its unit, its source and its date (ISO)."""

    value: float
    unit: str
    source: str
    date: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFigure:
    """Measurement of one layer in one form.

    operator, shape  `conv2d`, `64 -> 64 at 8x8 k3`; see `_micro_graphs`
    form             `fp32`, `int8`, `w4` (4-bit weights alone), `2:4`, `zeros50`, `zeros90`, `rank25`
    channels         out and in, of one group
    positions        rows of a linear layer, or pixels of a convolution's result: how often each weight is used
    ms               of one such layer, the session's own cost taken off; of `n` runs the 10th percentile
    speedup          over fp32, measured interleaved with it; `verdict` says whether that is more than noise
    gmac_s           the dense layer's multiply-accumulates a second, in 10⁹
    kernel           what ran, by the runtime's own names; empty where the form could not be run
    note             why it could not
    """

    operator: str
    shape: str
    form: str
    depthwise: bool = False
    channels: tuple[int, int] = (0, 0)
    positions: int = 0
    ms: float | None = None
    n: int = 0
    speedup: float | None = None
    verdict: Verdict | None = None
    gmac_s: float | None = None
    kernel: str = ""
    note: str = ""
    source: str = ""
    date: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFigures:
    """Figures of a machine.

    cores           pinned cores; n_cores: all that this process may use
    caches          caches of the first of them
    rates_gmac_s    "conv2d int8" -> rate of a middling layer (`_rates`)
    bandwidth_gb_s  "copy 16 kB" -> bytes read and written a second, in 10⁹
    overhead_us     "kernel": cost of one more kernel in a graph; "session": cost of one call beside its kernels
    scaling         gain of each further core, as a share of the first; None for one thread
    natively        form -> whether any layer ran faster in it than in fp32, beyond noise, and in other kernels
    """

    cpu: str
    architecture: str
    isa: tuple[str, ...]
    cores: tuple[int, ...]
    n_cores: int
    numa_nodes: tuple[int, ...]
    n_numa_nodes: int
    caches: tuple[CacheFacts, ...]
    memory_bytes: int | None
    runtime: str
    runtime_version: str
    threads: int
    runtime_threads: int | None
    rates_gmac_s: Mapping[str, MachineFigure]
    bandwidth_gb_s: Mapping[str, MachineFigure]
    overhead_us: Mapping[str, MachineFigure]
    scaling: MachineFigure | None
    kernels: tuple[KernelFigure, ...]
    natively: Mapping[str, bool]
    seconds: float
    date: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, for people: the profile is the form that is stored and read again."""
        data = dataclasses.asdict(self)
        data["caches_bytes"] = {cache.name: cache.bytes for cache in self.caches}
        return {"schema_version": SCHEMA_VERSION, **data}
