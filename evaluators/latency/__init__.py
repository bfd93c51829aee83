"""Latency measurements that stay meaningful on a machine with other users.

One measurement at a time runs on a machine (`exclusive_slot`), on a core of its own (`pinned`). Candidate and reference
are interleaved at random (`interleaved`) and ranked by the 10th percentile. Differences below max(3 %, A/A) count as
ties (`aa_floor`, `compare`). It knows `runtimes`. Begin with `_interleaved.py`; a machine's own profile begins in
`_micro.py`. Another fact about the machine belongs in `_machine.py`.
"""

from ._compare import TIE, Comparison, Verdict, compare
from ._figures import KernelFigure, MachineFigure, MachineFigures
from ._floor import aa_floor
from ._interleaved import interleaved
from ._machine import CacheFacts, caches, cpu_model, instruction_sets, machine_facts
from ._machine_profile import machine_profile, nearest_profile
from ._memory import memory_bytes, peak_memory
from ._micro import measure_machine, one_layer_ms
from ._micro_graphs import FORMS, STANDARD, LayerShape, graph_of, reason_against
from ._numa import numa_node, numa_nodes
from ._pinned import Pinning, last_cores, pinned
from ._rates import rate_of
from ._samples import LatencySamples
from ._slot import exclusive_slot
from ._throughput import BatchTimes, Throughput, throughput

__all__ = [
    "FORMS",
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
    "graph_of",
    "instruction_sets",
    "interleaved",
    "last_cores",
    "machine_facts",
    "machine_profile",
    "measure_machine",
    "memory_bytes",
    "nearest_profile",
    "numa_node",
    "numa_nodes",
    "one_layer_ms",
    "peak_memory",
    "pinned",
    "rate_of",
    "reason_against",
    "throughput",
]
