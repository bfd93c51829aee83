"""What can be done to a layer, and how. Runs where only torch and numpy (and safetensors, for files) are installed.

Importing this package imports no torch: `LayerSpec` and `Anatomy` are plain values, and everything that needs torch is
loaded when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_exports
from ._anatomy import KINDS, Anatomy, LayerInfo
from ._spec import ACTIVATION_BITS, FLOAT_BITS, FORMAT_BITS, WEIGHT_BITS, LayerSpec, formats

if TYPE_CHECKING:
    from ._calibration import ActivationRange, Calibration, activation_quantizer, calibrate
    from ._compress import applicable, compress, decode, needs_moments
    from ._digest import model_digest, tensor_digest
    from ._forward import Inputs, forward, module_at, preserved
    from ._moments import LayerMoments, Moments
    from ._registry import (
        methods,
        register_activation_method,
        register_rank_method,
        register_sparsity_method,
        register_weight_method,
    )
    from ._resident import CompressedModel
    from ._store import VariantStore
    from ._variant import Variant
    from .quantization import ActivationQuantizer
    from .storage import describe_file, fixed_bytes, layer_bytes, load_model, save_model, stored_bytes

_LAZY = {
    "ActivationRange": "._calibration",
    "Calibration": "._calibration",
    "activation_quantizer": "._calibration",
    "calibrate": "._calibration",
    "applicable": "._compress",
    "compress": "._compress",
    "decode": "._compress",
    "needs_moments": "._compress",
    "model_digest": "._digest",
    "tensor_digest": "._digest",
    "Inputs": "._forward",
    "forward": "._forward",
    "module_at": "._forward",
    "preserved": "._forward",
    "LayerMoments": "._moments",
    "Moments": "._moments",
    "methods": "._registry",
    "register_activation_method": "._registry",
    "register_rank_method": "._registry",
    "register_sparsity_method": "._registry",
    "register_weight_method": "._registry",
    "CompressedModel": "._resident",
    "VariantStore": "._store",
    "Variant": "._variant",
    "ActivationQuantizer": ".quantization",
    "describe_file": ".storage",
    "fixed_bytes": ".storage",
    "layer_bytes": ".storage",
    "load_model": ".storage",
    "save_model": ".storage",
    "stored_bytes": ".storage",
}

__all__ = [
    "ACTIVATION_BITS",
    "FLOAT_BITS",
    "FORMAT_BITS",
    "KINDS",
    "WEIGHT_BITS",
    "ActivationQuantizer",
    "ActivationRange",
    "Anatomy",
    "Calibration",
    "CompressedModel",
    "Inputs",
    "LayerInfo",
    "LayerMoments",
    "LayerSpec",
    "Moments",
    "Variant",
    "VariantStore",
    "activation_quantizer",
    "applicable",
    "calibrate",
    "compress",
    "decode",
    "describe_file",
    "fixed_bytes",
    "formats",
    "forward",
    "layer_bytes",
    "load_model",
    "methods",
    "model_digest",
    "module_at",
    "needs_moments",
    "preserved",
    "register_activation_method",
    "register_rank_method",
    "register_sparsity_method",
    "register_weight_method",
    "save_model",
    "stored_bytes",
    "tensor_digest",
]

__getattr__, __dir__ = lazy_exports(__name__, _LAZY)
