"""How much memory a model needs while it runs: its weights as they run, and its activations at their peak."""

from ._liveness import ActivationGraph, Buffer, Peak, Step, peak_activations
from ._trace import trace_activations
from ._weights import activation_peak, memory_bytes, other_weight_bytes, running_weight_bytes

__all__ = [
    "ActivationGraph",
    "Buffer",
    "Peak",
    "Step",
    "activation_peak",
    "memory_bytes",
    "other_weight_bytes",
    "peak_activations",
    "running_weight_bytes",
    "trace_activations",
]
