"""Repairs of a compressed model without more bytes: corrected biases, recalibrated batch norms, block reconstruction.

It knows `variants` and `structure`. Begin with `_repair.py`. Another repair is one file here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_exports

if TYPE_CHECKING:
    from ._blocks import MOST_LAYERS, blocks_of
    from ._cards import CARDS
    from ._reconstruction import Reconstruction, reconstruct
    from ._reconstruction_store import reconstructed, reconstruction_key
    from ._repair import Repairs, installed, kept_positions

_HOMES = {
    "._blocks": (
        "MOST_LAYERS",
        "blocks_of",
    ),
    "._cards": ("CARDS",),
    "._reconstruction": (
        "Reconstruction",
        "reconstruct",
    ),
    "._reconstruction_store": (
        "reconstructed",
        "reconstruction_key",
    ),
    "._repair": (
        "Repairs",
        "installed",
        "kept_positions",
    ),
}

__all__ = [
    "CARDS",
    "MOST_LAYERS",
    "Reconstruction",
    "Repairs",
    "blocks_of",
    "installed",
    "kept_positions",
    "reconstruct",
    "reconstructed",
    "reconstruction_key",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
