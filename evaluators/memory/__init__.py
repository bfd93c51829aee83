"""Memory that a model needs while it runs: its weights in their running widths, and its activations at their peak.

It knows `costs` and `runtimes`. Begin with `_liveness.py` (the peak over a graph) and `_trace.py` (the graph of a
model). The widths of weights are in `_weights.py`. The cache of a decoder's keys and values is in `_kv_cache.py`.
"""

from ._kv_cache import KvCache, KvCacheLayer, KvCacheSpec, PackedGroups, kv_cache_bytes, with_kv_cache
from ._liveness import ActivationGraph, Buffer, Peak, Step, peak_activations
from ._trace import trace_activations
from ._weights import activation_peak, memory_bytes, other_weight_bytes, running_weight_bytes

__all__ = [
    "ActivationGraph",
    "Buffer",
    "KvCache",
    "KvCacheLayer",
    "KvCacheSpec",
    "PackedGroups",
    "Peak",
    "Step",
    "activation_peak",
    "kv_cache_bytes",
    "memory_bytes",
    "other_weight_bytes",
    "peak_activations",
    "running_weight_bytes",
    "trace_activations",
    "with_kv_cache",
]
