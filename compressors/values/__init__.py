"""Plain values of compression: treatments of a layer, patterns of zeros, parameter names, kinds of layers.

They import no torch, and this room knows no other. Begin with `_spec.py` (`LayerSpec`). A new choice for a layer is a
field there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_exports
from ._names import GATES, PROJECTIONS, is_inner, sees_inputs, weight_name
from ._pattern import ANYWHERE, Pattern
from ._spec import (
    ACTIVATION_BITS,
    ACTIVATION_SCHEMES,
    ACTIVATION_SCOPES,
    FLOAT_BITS,
    FORMAT_BITS,
    RANK_FORMS,
    SCALE_BITS,
    SPEC_VERSION,
    WEIGHT_BITS,
    WHOLE_TENSOR,
    LayerSpec,
    formats,
)

if TYPE_CHECKING:
    from ._layer_types import CONVOLUTIONS

__all__ = [
    "ACTIVATION_BITS",
    "ACTIVATION_SCHEMES",
    "ACTIVATION_SCOPES",
    "ANYWHERE",
    "CONVOLUTIONS",
    "FLOAT_BITS",
    "FORMAT_BITS",
    "GATES",
    "PROJECTIONS",
    "RANK_FORMS",
    "SCALE_BITS",
    "SPEC_VERSION",
    "WEIGHT_BITS",
    "WHOLE_TENSOR",
    "LayerSpec",
    "Pattern",
    "formats",
    "is_inner",
    "sees_inputs",
    "weight_name",
]

__getattr__, __dir__ = lazy_exports(__name__, {"._layer_types": ("CONVOLUTIONS",)})
