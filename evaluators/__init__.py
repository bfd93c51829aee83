"""Evaluation of a compressed model: quality, size, operations, latency, memory, energy.

`Measurement` is imported at once; what needs torch, numpy or a runtime is imported when it is first asked for.
The runtimes (PyTorch, ONNX Runtime, OpenVINO) are in `paredown.evaluators.runtimes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_exports
from .values import Measurement, Source

if TYPE_CHECKING:
    from .costs import Cost, LayerRoofline, ModelledLatency, bops, lowered_as, macs, modelled_latency_ms, roofline
    from .energy import ModelledEnergy, co2_g_per_million, measure_energy, modelled_energy_mj
    from .latency import LatencySamples, Pinning, aa_floor, exclusive_slot, interleaved, pinned
    from .memory import (
        ActivationGraph,
        KvCacheSpec,
        Peak,
        kv_cache_bytes,
        memory_bytes,
        peak_activations,
        trace_activations,
        with_kv_cache,
    )
    from .quality import (
        METRICS,
        Metric,
        MetricError,
        OutputDistance,
        PairedResult,
        Scores,
        SequentialTest,
        default_looks,
        divergence_per_sample,
        evaluate_batches,
        evaluate_outputs,
        evaluate_parts,
        evaluate_split,
        get_metric,
        losses_of,
        metric_from_callable,
        paired_test,
        register_metric,
        resolve_divergence,
        summarise,
        value_of_loss,
    )
    from .sensitivity import loss_gradients
    from .values import Inputs, Reference, ReferenceOutputs, Split, preserved, reference_outputs, run_batches, run_split

_HOMES = {
    ".costs": (
        "Cost",
        "LayerRoofline",
        "ModelledLatency",
        "bops",
        "lowered_as",
        "macs",
        "modelled_latency_ms",
        "roofline",
    ),
    ".energy": ("ModelledEnergy", "co2_g_per_million", "measure_energy", "modelled_energy_mj"),
    ".latency": ("LatencySamples", "Pinning", "aa_floor", "exclusive_slot", "interleaved", "pinned"),
    ".memory": (
        "ActivationGraph",
        "KvCacheSpec",
        "Peak",
        "kv_cache_bytes",
        "memory_bytes",
        "peak_activations",
        "trace_activations",
        "with_kv_cache",
    ),
    ".quality": (
        "METRICS",
        "Metric",
        "MetricError",
        "OutputDistance",
        "PairedResult",
        "Scores",
        "SequentialTest",
        "default_looks",
        "divergence_per_sample",
        "evaluate_batches",
        "evaluate_outputs",
        "evaluate_parts",
        "evaluate_split",
        "get_metric",
        "losses_of",
        "metric_from_callable",
        "paired_test",
        "register_metric",
        "resolve_divergence",
        "summarise",
        "value_of_loss",
    ),
    ".sensitivity": ("loss_gradients",),
    ".values": (
        "Inputs",
        "Reference",
        "ReferenceOutputs",
        "Split",
        "preserved",
        "reference_outputs",
        "run_batches",
        "run_split",
    ),
}

__all__ = [
    "METRICS",
    "ActivationGraph",
    "Cost",
    "Inputs",
    "KvCacheSpec",
    "LatencySamples",
    "LayerRoofline",
    "Measurement",
    "Metric",
    "MetricError",
    "ModelledEnergy",
    "ModelledLatency",
    "OutputDistance",
    "PairedResult",
    "Peak",
    "Pinning",
    "Reference",
    "ReferenceOutputs",
    "Scores",
    "SequentialTest",
    "Source",
    "Split",
    "aa_floor",
    "bops",
    "co2_g_per_million",
    "default_looks",
    "divergence_per_sample",
    "evaluate_batches",
    "evaluate_outputs",
    "evaluate_parts",
    "evaluate_split",
    "exclusive_slot",
    "get_metric",
    "interleaved",
    "kv_cache_bytes",
    "loss_gradients",
    "losses_of",
    "lowered_as",
    "macs",
    "measure_energy",
    "memory_bytes",
    "metric_from_callable",
    "modelled_energy_mj",
    "modelled_latency_ms",
    "paired_test",
    "peak_activations",
    "pinned",
    "preserved",
    "reference_outputs",
    "register_metric",
    "resolve_divergence",
    "roofline",
    "run_batches",
    "run_split",
    "summarise",
    "trace_activations",
    "value_of_loss",
    "with_kv_cache",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
