"""File of a compressed model: records of layers, the layout, and the bytes of each part.

It knows `variants` and `sparse_formats`. Begin with `_model_file.py` (`save_model`, `load_model`). The format is
described in `docs/artifact.md`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_exports

if TYPE_CHECKING:
    from ._layout import Layout
    from ._model_file import describe_file, load_model, save_model, stored_integers, stored_weights
    from ._records import Reader, entropy_record, weight_record
    from ._sizes import fixed_bytes, layer_bytes, stored_bytes

_HOMES = {
    "._layout": ("Layout",),
    "._model_file": (
        "describe_file",
        "load_model",
        "save_model",
        "stored_integers",
        "stored_weights",
    ),
    "._records": (
        "Reader",
        "entropy_record",
        "weight_record",
    ),
    "._sizes": (
        "fixed_bytes",
        "layer_bytes",
        "stored_bytes",
    ),
}

__all__ = [
    "Layout",
    "Reader",
    "describe_file",
    "entropy_record",
    "fixed_bytes",
    "layer_bytes",
    "load_model",
    "save_model",
    "stored_bytes",
    "stored_integers",
    "stored_weights",
    "weight_record",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
