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
    from ._run import ReferenceOutputs, device_of, moved, run_batches, run_split
    from ._split import Inputs, Split

_HOMES = {
    "._preserved": ("preserved",),
    "._run": (
        "ReferenceOutputs",
        "device_of",
        "moved",
        "run_batches",
        "run_split",
    ),
    "._split": (
        "Inputs",
        "Split",
    ),
}

__all__ = [
    "Inputs",
    "Measurement",
    "ReferenceOutputs",
    "Source",
    "Split",
    "device_of",
    "moved",
    "preserved",
    "run_batches",
    "run_split",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
