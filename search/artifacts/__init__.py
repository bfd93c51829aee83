"""Artifacts: exported, loaded again in a fresh process, measured there, compared with what they should compute.

It knows `workers` and `evaluation`. Begin with `_measure.py` (the one way from exported model files to a measured
artifact) and `_manifest.py` (what an artifact says of itself). Another check of an artifact belongs here.
"""

from ._explain_mismatch import describe_float64_difference, explain_mismatch
from ._exporter import Exporter
from ._formats import artifact_format, is_for_elsewhere, needs_factory, runtime_for
from ._judge import answers_of, latency_metrics, measure_peak_memory
from ._kernels import add_kernels
from ._manifest import CONFIG, MANIFEST, Artifact, inside, read_artifact, write_manifest
from ._measure import (
    ExportedModel,
    MeasuredArtifact,
    capacity_options,
    file_bytes,
    measure_artifact,
    measure_beside_original,
    most_at_once,
    run_fresh,
    stored_length,
)
from ._measure_fresh import REFERENCE, Loaded, measure_fresh
from ._parity import Parity, ParityResult
from ._throughput import capacity
from ._write import write_artifact

__all__ = [
    "CONFIG",
    "MANIFEST",
    "REFERENCE",
    "Artifact",
    "ExportedModel",
    "Exporter",
    "Loaded",
    "MeasuredArtifact",
    "Parity",
    "ParityResult",
    "add_kernels",
    "answers_of",
    "artifact_format",
    "capacity",
    "capacity_options",
    "describe_float64_difference",
    "explain_mismatch",
    "file_bytes",
    "inside",
    "is_for_elsewhere",
    "latency_metrics",
    "measure_artifact",
    "measure_beside_original",
    "measure_fresh",
    "measure_peak_memory",
    "most_at_once",
    "needs_factory",
    "read_artifact",
    "run_fresh",
    "runtime_for",
    "stored_length",
    "write_artifact",
    "write_manifest",
]
