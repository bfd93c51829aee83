"""What can be done to a layer, and how. Runs where only torch and numpy (and safetensors, for files) are installed.

Importing this package imports no torch: `LayerSpec` and `Anatomy` are plain values, and everything that needs torch is
loaded when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_exports
from .anatomy._anatomy import KINDS, Anatomy, LayerInfo
from .values._fields import (
    ACTIVATION_BITS,
    FLOAT_BITS,
    FORMAT_BITS,
    RANK_FORMS,
    WEIGHT_BITS,
    SpecField,
    formats,
    register_field,
)
from .values._pattern import Pattern
from .values._spec import SPEC_VERSION, LayerSpec

if TYPE_CHECKING:
    from ._catalogue import is_method, methods
    from .anatomy._equalizable import EqualizablePair, find_equalizable_pairs
    from .anatomy._forward import Inputs, forward, module_at, preserved
    from .anatomy._layers import weight_at
    from .anatomy._trace import trace_anatomy
    from .calibration._calibration import (
        ActivationRange,
        Calibration,
        Rounding,
        activation_quantizer,
        calibrate,
        rounding_of,
    )
    from .calibration._gradients import Gradients, LayerGradients, collect_gradients
    from .calibration._moments import LayerMoments, Moments
    from .files._digest import model_digest, tensor_digest
    from .preparation._channel_scaling import SCALINGS, scale_channels
    from .quantization import ActivationQuantizer
    from .registry._registry import (
        register_activation_method,
        register_rank_method,
        register_sparsity_method,
        register_weight_method,
    )
    from .repair._reconstruction import Reconstruction, reconstruct
    from .repair._repair import Repairs, installed
    from .storage import describe_file, fixed_bytes, layer_bytes, load_model, save_model, stored_bytes
    from .variants._compress import applicable, compress, decode, needs_gradients, needs_moments
    from .variants._resident import CompressedModel
    from .variants._store import VariantStore
    from .variants._variant import EvenCodes, Variant

_HOMES = {
    "._catalogue": ("is_method", "methods"),
    ".anatomy._trace": ("trace_anatomy",),
    ".anatomy._equalizable": (
        "EqualizablePair",
        "find_equalizable_pairs",
    ),
    ".anatomy._forward": (
        "Inputs",
        "forward",
        "module_at",
        "preserved",
    ),
    ".anatomy._layers": ("weight_at",),
    ".calibration._calibration": (
        "ActivationRange",
        "Calibration",
        "Rounding",
        "activation_quantizer",
        "calibrate",
        "rounding_of",
    ),
    ".calibration._gradients": (
        "Gradients",
        "LayerGradients",
        "collect_gradients",
    ),
    ".calibration._moments": (
        "LayerMoments",
        "Moments",
    ),
    ".files._digest": (
        "model_digest",
        "tensor_digest",
    ),
    ".registry._registry": (
        "register_activation_method",
        "register_rank_method",
        "register_sparsity_method",
        "register_weight_method",
    ),
    ".preparation._channel_scaling": (
        "SCALINGS",
        "scale_channels",
    ),
    ".quantization": ("ActivationQuantizer",),
    ".repair._reconstruction": (
        "Reconstruction",
        "reconstruct",
    ),
    ".repair._repair": (
        "Repairs",
        "installed",
    ),
    ".storage": (
        "describe_file",
        "fixed_bytes",
        "layer_bytes",
        "load_model",
        "save_model",
        "stored_bytes",
    ),
    ".variants._compress": (
        "applicable",
        "compress",
        "decode",
        "needs_gradients",
        "needs_moments",
    ),
    ".variants._resident": ("CompressedModel",),
    ".variants._store": ("VariantStore",),
    ".variants._variant": (
        "EvenCodes",
        "Variant",
    ),
}

__all__ = [
    "ACTIVATION_BITS",
    "FLOAT_BITS",
    "FORMAT_BITS",
    "KINDS",
    "RANK_FORMS",
    "SCALINGS",
    "SPEC_VERSION",
    "WEIGHT_BITS",
    "ActivationQuantizer",
    "ActivationRange",
    "Anatomy",
    "Calibration",
    "CompressedModel",
    "EqualizablePair",
    "EvenCodes",
    "Gradients",
    "Inputs",
    "LayerGradients",
    "LayerInfo",
    "LayerMoments",
    "LayerSpec",
    "Moments",
    "Pattern",
    "Reconstruction",
    "Repairs",
    "Rounding",
    "SpecField",
    "Variant",
    "VariantStore",
    "activation_quantizer",
    "applicable",
    "calibrate",
    "collect_gradients",
    "compress",
    "decode",
    "describe_file",
    "find_equalizable_pairs",
    "fixed_bytes",
    "formats",
    "forward",
    "installed",
    "is_method",
    "layer_bytes",
    "load_model",
    "methods",
    "model_digest",
    "module_at",
    "needs_gradients",
    "needs_moments",
    "preserved",
    "reconstruct",
    "register_activation_method",
    "register_field",
    "register_rank_method",
    "register_sparsity_method",
    "register_weight_method",
    "rounding_of",
    "save_model",
    "scale_channels",
    "stored_bytes",
    "tensor_digest",
    "trace_anatomy",
    "weight_at",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
