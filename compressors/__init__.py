"""Treatments of a layer and the methods that apply them.

It runs where only torch and numpy (and safetensors, for files) are installed.

Importing this package imports no torch: `LayerSpec` and `Anatomy` are plain values, and everything that needs torch is
loaded when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_exports
from .anatomy import KINDS, Anatomy, LayerInfo
from .values import (
    ACTIVATION_BITS,
    FLOAT_BITS,
    FORMAT_BITS,
    RANK_FORMS,
    SPEC_VERSION,
    WEIGHT_BITS,
    LayerSpec,
    Pattern,
    SpecField,
    formats,
    register_field,
)

if TYPE_CHECKING:
    from ._catalogue import is_method, methods
    from .anatomy import (
        EqualizablePair,
        Inputs,
        find_equalizable_pairs,
        forward,
        module_at,
        preserved,
        trace_anatomy,
        weight_at,
    )
    from .calibration import (
        ActivationRange,
        Calibration,
        Gradients,
        LayerGradients,
        LayerMoments,
        Moments,
        Rounding,
        activation_quantizer,
        calibrate,
        collect_gradients,
        rounding_of,
    )
    from .files import model_digest, tensor_digest
    from .preparation import SCALINGS, scale_channels
    from .quantization import ActivationQuantizer
    from .registry import (
        register_activation_method,
        register_rank_method,
        register_sparsity_method,
        register_weight_method,
    )
    from .repair import Reconstruction, Repairs, installed, reconstruct
    from .storage import describe_file, fixed_bytes, layer_bytes, load_model, save_model, stored_bytes
    from .variants import (
        CompressedModel,
        EvenCodes,
        Variant,
        VariantStore,
        applicable,
        compress,
        decode,
        needs_gradients,
        needs_moments,
        uses_moments,
    )

_HOMES = {
    "._catalogue": (
        "is_method",
        "methods",
    ),
    ".anatomy": (
        "EqualizablePair",
        "Inputs",
        "find_equalizable_pairs",
        "forward",
        "module_at",
        "preserved",
        "trace_anatomy",
        "weight_at",
    ),
    ".calibration": (
        "ActivationRange",
        "Calibration",
        "Gradients",
        "LayerGradients",
        "LayerMoments",
        "Moments",
        "Rounding",
        "activation_quantizer",
        "calibrate",
        "collect_gradients",
        "rounding_of",
    ),
    ".files": (
        "model_digest",
        "tensor_digest",
    ),
    ".preparation": (
        "SCALINGS",
        "scale_channels",
    ),
    ".quantization": ("ActivationQuantizer",),
    ".registry": (
        "register_activation_method",
        "register_rank_method",
        "register_sparsity_method",
        "register_weight_method",
    ),
    ".repair": (
        "Reconstruction",
        "Repairs",
        "installed",
        "reconstruct",
    ),
    ".storage": (
        "describe_file",
        "fixed_bytes",
        "layer_bytes",
        "load_model",
        "save_model",
        "stored_bytes",
    ),
    ".variants": (
        "CompressedModel",
        "EvenCodes",
        "Variant",
        "VariantStore",
        "applicable",
        "compress",
        "decode",
        "needs_gradients",
        "needs_moments",
        "uses_moments",
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
    "uses_moments",
    "weight_at",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
