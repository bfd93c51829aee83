"""Values of an evaluation: a measurement with its interval, a split of samples, and forward passes over it.

It knows `compressors` and imports torch on demand. Begin with `_measurement.py` (`Measurement`) and `_split.py`
(`Split`). `_preserved.py` and `_run.py` run a model without a trace on it. A value that several kinds of evaluation
share belongs here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_exports
from ._measurement import Measurement, Source

if TYPE_CHECKING:
    from ._preserved import preserved
    from ._reference import (
        RecomputedOutputs,
        Reference,
        ReferenceOutputs,
        bounded_batch,
        output_bytes,
        reference_outputs,
    )
    from ._run import device_of, moved, run_batches, run_split
    from ._split import Inputs, Split
    from ._variance import RunningVariance

_HOMES = {
    "._preserved": ("preserved",),
    "._reference": (
        "RecomputedOutputs",
        "Reference",
        "ReferenceOutputs",
        "bounded_batch",
        "output_bytes",
        "reference_outputs",
    ),
    "._run": (
        "device_of",
        "moved",
        "run_batches",
        "run_split",
    ),
    "._split": (
        "Inputs",
        "Split",
    ),
    "._variance": ("RunningVariance",),
}

__all__ = [
    "Inputs",
    "Measurement",
    "RecomputedOutputs",
    "Reference",
    "ReferenceOutputs",
    "RunningVariance",
    "Source",
    "Split",
    "bounded_batch",
    "device_of",
    "moved",
    "output_bytes",
    "preserved",
    "reference_outputs",
    "run_batches",
    "run_split",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
