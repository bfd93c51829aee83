"""Changes to a model before compression that keep its function: channel scaling.

It knows `calibration` and `anatomy`. Begin with `_channel_scaling.py`. Another preparation (a rotation, say) is one
file here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_exports

if TYPE_CHECKING:
    from ._cards import CARDS
    from ._channel_scaling import SCALINGS, scale_channels

_HOMES = {
    "._cards": ("CARDS",),
    "._channel_scaling": (
        "SCALINGS",
        "scale_channels",
    ),
}

__all__ = [
    "CARDS",
    "SCALINGS",
    "scale_channels",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
