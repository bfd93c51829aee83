"""Memory that a model needs while it runs: its weights in their running widths, and its activations at their peak.

It knows `costs` and `runtimes`. Begin with `_liveness.py` (the peak over a graph) and `_trace.py` (the graph of a
model). The widths of weights are in `_weights.py`. The cache of a decoder's keys and values is in `_kv_cache.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_exports
from ._liveness import ActivationGraph, Buffer, Peak, Step, peak_activations
from ._weights import activation_peak, memory_bytes, other_weight_bytes, running_weight_bytes

if TYPE_CHECKING:
    from ._kv_cache import KvCache, KvCacheLayer, KvCacheSpec, PackedGroups, kv_cache_bytes, with_kv_cache
    from ._trace import trace_activations

_HOMES = {
    "._kv_cache": ("KvCache", "KvCacheLayer", "KvCacheSpec", "PackedGroups", "kv_cache_bytes", "with_kv_cache"),
    "._trace": ("trace_activations",),
}
"""Modules that import torch, loaded when one of their names is first asked for."""

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

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
