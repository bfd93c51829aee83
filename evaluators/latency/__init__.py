"""Latency, measured so that it means something on a machine that others use too.

One measurement a machine at a time (`exclusive_slot`), on a core of its own (`pinned`), candidate and reference
interleaved at random (`interleaved`), ranked by the 10th percentile, with differences below max(3 %, A/A) called ties
(`aa_floor`, `is_tie`).
"""

from __future__ import annotations

from ._compare import Comparison, Verdict, compare
from ._figures import KernelFigure, MachineFigure, MachineFigures
from ._floor import TIE, aa_floor, is_tie
from ._interleaved import interleaved
from ._machine import caches_bytes, cpu_model, instruction_sets, machine_facts, numa_node
from ._memory import peak_memory
from ._micro import measure_machine
from ._micro_graphs import STANDARD, LayerShape
from ._pinned import Pinning, last_cores, pinned
from ._samples import LatencySamples
from ._slot import exclusive_slot
from ._throughput import BatchTimes, Throughput, throughput

__all__ = [
    "STANDARD",
    "TIE",
    "BatchTimes",
    "Comparison",
    "KernelFigure",
    "LatencySamples",
    "LayerShape",
    "MachineFigure",
    "MachineFigures",
    "Pinning",
    "Throughput",
    "Verdict",
    "aa_floor",
    "caches_bytes",
    "compare",
    "cpu_model",
    "exclusive_slot",
    "instruction_sets",
    "interleaved",
    "is_tie",
    "last_cores",
    "machine_facts",
    "measure_machine",
    "numa_node",
    "peak_memory",
    "pinned",
    "throughput",
]
