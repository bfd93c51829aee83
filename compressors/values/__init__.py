"""Plain values of compression: treatments of a layer, patterns of zeros, parameter names, kinds of layers.

They import no torch, and this room knows no other. Begin with `_spec.py` (`LayerSpec`). A new choice for a layer is a
field there and a descriptor in `_fields.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_exports
from ._fields import (
    ACTIVATION_BITS,
    FLOAT_BITS,
    FORMAT_BITS,
    RANK_FORMS,
    WEIGHT_BITS,
    WHOLE_TENSOR,
    SpecField,
    formats,
    register_field,
    spec_field,
    spec_fields,
)
from ._names import GATES, PROJECTIONS, is_inner, sees_inputs, weight_name
from ._pattern import ANYWHERE, Pattern
from ._spec import SPEC_VERSION, LayerSpec
from ._structural_name import StructuralName

if TYPE_CHECKING:
    from ._layer_types import CONVOLUTIONS

__all__ = [
    "ACTIVATION_BITS",
    "ANYWHERE",
    "CONVOLUTIONS",
    "FLOAT_BITS",
    "FORMAT_BITS",
    "GATES",
    "PROJECTIONS",
    "RANK_FORMS",
    "SPEC_VERSION",
    "WEIGHT_BITS",
    "WHOLE_TENSOR",
    "LayerSpec",
    "Pattern",
    "SpecField",
    "StructuralName",
    "formats",
    "is_inner",
    "register_field",
    "sees_inputs",
    "spec_field",
    "spec_fields",
    "weight_name",
]

__getattr__, __dir__ = lazy_exports(__name__, {"._layer_types": ("CONVOLUTIONS",)})
