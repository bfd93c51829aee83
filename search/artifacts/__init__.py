"""Artifacts: exported, loaded again in a fresh process, measured there, compared with what they should compute.

It knows `workers` and `evaluation`. Begin with `_measure.py` (the one way from an assignment to a judged artifact) and
`_manifest.py` (what an artifact says of itself). Another check of an artifact belongs here.
"""

from ._explain_mismatch import doubt_of, explain_mismatch
from ._exporter import (
    Exporter,
    artifact_format,
    is_for_elsewhere,
    judge_loaded,
    latencies,
    needs_factory,
    peak_memory_of,
    runtime_for,
    write_artifact,
)
from ._fresh_process import REFERENCE, Loaded, measure_fresh
from ._kernels import add_kernels
from ._manifest import CONFIG, MANIFEST, Artifact, inside, read_artifact, write_manifest
from ._parity import Agreed, Agreement
from ._throughput import capacity

__all__ = [
    "CONFIG",
    "MANIFEST",
    "REFERENCE",
    "Agreed",
    "Agreement",
    "Artifact",
    "Exporter",
    "Loaded",
    "add_kernels",
    "artifact_format",
    "capacity",
    "doubt_of",
    "explain_mismatch",
    "inside",
    "is_for_elsewhere",
    "judge_loaded",
    "latencies",
    "measure_fresh",
    "needs_factory",
    "peak_memory_of",
    "read_artifact",
    "runtime_for",
    "write_artifact",
    "write_manifest",
]
