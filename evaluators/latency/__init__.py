"""Latency, measured so that it means something on a machine that others use too.

One measurement a machine at a time (`exclusive_slot`), on a core of its own (`pinned`), candidate and reference
interleaved at random (`interleaved`), ranked by the 10th percentile, with differences below max(3 %, A/A) called ties
(`aa_floor`, `compare`).
"""

from __future__ import annotations

from ._compare import TIE, Comparison, Verdict, compare
from ._figures import KernelFigure, MachineFigure, MachineFigures
from ._floor import aa_floor
from ._interleaved import interleaved
from ._machine import CacheFacts, caches, cpu_model, instruction_sets, machine_facts
from ._machine_profile import machine_profile, nearest_profile
from ._memory import peak_memory
from ._micro import measure_machine
from ._micro_graphs import STANDARD, LayerShape
from ._numa import numa_node, numa_nodes
from ._pinned import Pinning, last_cores, pinned
from ._samples import LatencySamples
from ._slot import exclusive_slot
from ._throughput import BatchTimes, Throughput, throughput

__all__ = [
    "STANDARD",
    "TIE",
    "BatchTimes",
    "CacheFacts",
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
    "caches",
    "compare",
    "cpu_model",
    "exclusive_slot",
    "instruction_sets",
    "interleaved",
    "last_cores",
    "machine_facts",
    "machine_profile",
    "measure_machine",
    "nearest_profile",
    "numa_node",
    "numa_nodes",
    "peak_memory",
    "pinned",
    "throughput",
]
