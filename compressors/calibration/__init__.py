"""Statistics of the layers on calibration data: ranges, moments and gradients.

It knows `anatomy` and `quantization`. Begin with `_calibration.py` (`calibrate`). Another statistic is one file here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_exports

if TYPE_CHECKING:
    from ._calibration import Calibration, Rounding, install, output_key, rounding_of
    from ._gradients import PASSES, LayerGradients, differentiable, drawn_answers
    from ._moments import LARGEST, LayerMoments, Moments

_HOMES = {
    "._calibration": (
        "Calibration",
        "Rounding",
        "install",
        "output_key",
        "rounding_of",
    ),
    "._gradients": (
        "LayerGradients",
        "PASSES",
        "differentiable",
        "drawn_answers",
    ),
    "._moments": (
        "LARGEST",
        "LayerMoments",
        "Moments",
    ),
}

__all__ = [
    "LARGEST",
    "PASSES",
    "Calibration",
    "LayerGradients",
    "LayerMoments",
    "Moments",
    "Rounding",
    "differentiable",
    "drawn_answers",
    "install",
    "output_key",
    "rounding_of",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
