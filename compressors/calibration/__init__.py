"""Statistics of the layers on calibration data: ranges, moments and gradients.

It knows `anatomy` and `quantization`. Begin with `_calibration.py` (`Calibration`, a plain value) and `_calibrate.py`
(`calibrate`, which makes one). Another statistic is one file here, like `_moments.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_exports

if TYPE_CHECKING:
    from ._calibrate import RangeWatcher, calibrate
    from ._calibration import MISSING, ActivationRange, Calibration, output_key, scores_key
    from ._gradients import PASSES, Gradients, LayerGradients, collect_gradients, differentiable, drawn_answers
    from ._moments import LARGEST, LayerMoments, Moments, affordable
    from ._rounding import Rounding, activation_quantizer, install, rounding_of

_HOMES = {
    "._calibrate": (
        "RangeWatcher",
        "calibrate",
    ),
    "._calibration": (
        "ActivationRange",
        "Calibration",
        "MISSING",
        "output_key",
        "scores_key",
    ),
    "._gradients": (
        "Gradients",
        "LayerGradients",
        "PASSES",
        "collect_gradients",
        "differentiable",
        "drawn_answers",
    ),
    "._moments": (
        "LARGEST",
        "LayerMoments",
        "Moments",
        "affordable",
    ),
    "._rounding": (
        "Rounding",
        "activation_quantizer",
        "install",
        "rounding_of",
    ),
}

__all__ = [
    "LARGEST",
    "MISSING",
    "PASSES",
    "ActivationRange",
    "Calibration",
    "Gradients",
    "LayerGradients",
    "LayerMoments",
    "Moments",
    "RangeWatcher",
    "Rounding",
    "activation_quantizer",
    "affordable",
    "calibrate",
    "collect_gradients",
    "differentiable",
    "drawn_answers",
    "install",
    "output_key",
    "rounding_of",
    "scores_key",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
