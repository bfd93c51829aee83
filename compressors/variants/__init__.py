"""Compressed forms of layers: made by methods, stored by content, applied to the resident model.

It knows `calibration` and the methods. Begin with `_compress.py` (one layer), `_store.py` (all of them, on disk) and
`_resident.py` (a model that takes any of them).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_exports

if TYPE_CHECKING:
    from ._compress import applicable, compress, needs_gradients, needs_moments, uses_moments
    from ._encoding import (
        NAMES,
        concrete_grid,
        index_source,
        load_coded,
        load_values,
        slots_of,
        store_coded,
        store_values,
    )
    from ._resident import CompressedModel, check_names, variant_of
    from ._statistics import lacks, why_missing, without_statistics
    from ._store import VariantStore
    from ._variant import EvenCodes, Variant, decode, part_shapes, part_spec, prefixes

_HOMES = {
    "._compress": (
        "applicable",
        "compress",
        "needs_gradients",
        "needs_moments",
        "uses_moments",
    ),
    "._encoding": (
        "NAMES",
        "concrete_grid",
        "index_source",
        "load_coded",
        "load_values",
        "slots_of",
        "store_coded",
        "store_values",
    ),
    "._resident": (
        "CompressedModel",
        "check_names",
        "variant_of",
    ),
    "._statistics": (
        "lacks",
        "why_missing",
        "without_statistics",
    ),
    "._store": ("VariantStore",),
    "._variant": (
        "EvenCodes",
        "Variant",
        "decode",
        "part_shapes",
        "part_spec",
        "prefixes",
    ),
}

__all__ = [
    "NAMES",
    "CompressedModel",
    "EvenCodes",
    "Variant",
    "VariantStore",
    "applicable",
    "check_names",
    "compress",
    "concrete_grid",
    "decode",
    "index_source",
    "lacks",
    "load_coded",
    "load_values",
    "needs_gradients",
    "needs_moments",
    "part_shapes",
    "part_spec",
    "prefixes",
    "slots_of",
    "store_coded",
    "store_values",
    "uses_moments",
    "variant_of",
    "why_missing",
    "without_statistics",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
