"""Costs of a compressed model without running it: operations counted, and latency modelled from a device's profile.

It knows `values` and `hardware_profiles`. Begin with `_static.py` (multiply-accumulates and bit operations) and
`_roofline.py` (latency). `_lowered.py` alone translates a layer and its spec to a profile's terms. Another modelled
cost is one file here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_exports

if TYPE_CHECKING:
    from ._lowered import channels_of, is_depthwise, lowered_as
    from ._roofline import LayerRoofline, ModelledLatency, modelled_latency_ms, roofline
    from ._static import Cost, bops, factor_macs, macs, spec_macs, specs_of

_HOMES = {
    "._lowered": (
        "channels_of",
        "is_depthwise",
        "lowered_as",
    ),
    "._roofline": (
        "LayerRoofline",
        "ModelledLatency",
        "modelled_latency_ms",
        "roofline",
    ),
    "._static": (
        "Cost",
        "bops",
        "factor_macs",
        "macs",
        "spec_macs",
        "specs_of",
    ),
}

__all__ = [
    "Cost",
    "LayerRoofline",
    "ModelledLatency",
    "bops",
    "channels_of",
    "factor_macs",
    "is_depthwise",
    "lowered_as",
    "macs",
    "modelled_latency_ms",
    "roofline",
    "spec_macs",
    "specs_of",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
