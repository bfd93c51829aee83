"""What a compressed model is worth: quality, size, operations, latency.

`Measurement` is imported at once; what needs torch, numpy or a runtime is imported when it is first asked for.
The runtimes (PyTorch, ONNX Runtime, OpenVINO) are in `paredown.evaluators.runtimes`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._measurement import Measurement, Source

if TYPE_CHECKING:
    from ._costs import Cost, bops, macs
    from ._evaluate import Scores, evaluate_outputs, evaluate_parts, evaluate_split
    from ._modelled import ModelledLatency, modelled_latency_ms
    from ._preserved import preserved
    from ._run import ReferenceOutputs, run_batches, run_split
    from ._split import Inputs, Split
    from .latency import (
        LatencySamples,
        Pinning,
        aa_floor,
        exclusive_slot,
        interleaved,
        is_tie,
        pinned,
    )
    from .quality import (
        METRICS,
        Metric,
        MetricError,
        PairedResult,
        SequentialTest,
        default_looks,
        divergence_per_sample,
        get_metric,
        losses_of,
        metric_from_callable,
        paired_test,
        register_metric,
        resolve_divergence,
        summarise,
        value_of_loss,
    )

_HOMES = {
    "._costs": ("Cost", "bops", "macs"),
    "._evaluate": ("Scores", "evaluate_outputs", "evaluate_parts", "evaluate_split"),
    "._modelled": ("ModelledLatency", "modelled_latency_ms"),
    "._preserved": ("preserved",),
    "._run": ("ReferenceOutputs", "run_batches", "run_split"),
    "._split": ("Inputs", "Split"),
    ".latency": ("LatencySamples", "Pinning", "aa_floor", "exclusive_slot", "interleaved", "is_tie", "pinned"),
    ".quality": (
        "METRICS",
        "Metric",
        "MetricError",
        "PairedResult",
        "SequentialTest",
        "default_looks",
        "divergence_per_sample",
        "get_metric",
        "losses_of",
        "metric_from_callable",
        "paired_test",
        "register_metric",
        "resolve_divergence",
        "summarise",
        "value_of_loss",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "METRICS",
    "Cost",
    "Inputs",
    "LatencySamples",
    "Measurement",
    "Metric",
    "MetricError",
    "ModelledLatency",
    "PairedResult",
    "Pinning",
    "ReferenceOutputs",
    "Scores",
    "SequentialTest",
    "Source",
    "Split",
    "aa_floor",
    "bops",
    "default_looks",
    "divergence_per_sample",
    "evaluate_outputs",
    "evaluate_parts",
    "evaluate_split",
    "exclusive_slot",
    "get_metric",
    "interleaved",
    "is_tie",
    "losses_of",
    "macs",
    "metric_from_callable",
    "modelled_latency_ms",
    "paired_test",
    "pinned",
    "preserved",
    "register_metric",
    "resolve_divergence",
    "run_batches",
    "run_split",
    "summarise",
    "value_of_loss",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name], __name__), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
