"""What can be done to a layer, and how. Runs where only torch and numpy (and safetensors, for files) are installed.

Importing this package imports no torch: `LayerSpec` and `Anatomy` are plain values, and everything that needs torch is
loaded when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_exports
from .anatomy._anatomy import KINDS, Anatomy, LayerInfo
from .values._pattern import Pattern
from .values._spec import (
    ACTIVATION_BITS,
    FLOAT_BITS,
    FORMAT_BITS,
    RANK_FORMS,
    SPEC_VERSION,
    WEIGHT_BITS,
    LayerSpec,
    formats,
)

if TYPE_CHECKING:
    from .anatomy._equalizable import Link, find_links
    from .anatomy._forward import Inputs, forward, module_at, preserved
    from .anatomy._layers import weight_at
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
    from .methods._registry import (
        is_method,
        methods,
        register_activation_method,
        register_rank_method,
        register_sparsity_method,
        register_weight_method,
    )
    from .preparation._channel_scaling import SCALINGS, scale_channels
    from .quantization import ActivationQuantizer
    from .repair._reconstruction import Reconstruction, reconstruct
    from .repair._repair import Repairs, installed
    from .storage import describe_file, fixed_bytes, layer_bytes, load_model, save_model, stored_bytes
    from .variants._compress import applicable, compress, decode, needs_gradients, needs_moments
    from .variants._resident import CompressedModel
    from .variants._store import VariantStore
    from .variants._variant import EvenCodes, Variant

_LAZY = {
    "ActivationRange": "._calibration",
    "Calibration": "._calibration",
    "Rounding": "._calibration",
    "activation_quantizer": "._calibration",
    "rounding_of": "._calibration",
    "calibrate": "._calibration",
    "applicable": "._compress",
    "compress": "._compress",
    "decode": "._compress",
    "needs_gradients": "._compress",
    "needs_moments": "._compress",
    "model_digest": "._digest",
    "tensor_digest": "._digest",
    "Inputs": "._forward",
    "forward": "._forward",
    "module_at": "._forward",
    "weight_at": "._layers",
    "preserved": "._forward",
    "Link": "._links",
    "find_links": "._links",
    "Gradients": "._gradients",
    "LayerGradients": "._gradients",
    "collect_gradients": "._gradients",
    "LayerMoments": "._moments",
    "Moments": "._moments",
    "Reconstruction": "._reconstruction",
    "reconstruct": "._reconstruction",
    "is_method": "._registry",
    "methods": "._registry",
    "register_activation_method": "._registry",
    "register_rank_method": "._registry",
    "register_sparsity_method": "._registry",
    "register_weight_method": "._registry",
    "Repairs": "._repair",
    "installed": "._repair",
    "CompressedModel": "._resident",
    "SCALINGS": "._scaling",
    "scale_channels": "._scaling",
    "VariantStore": "._store",
    "EvenCodes": "._variant",
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
    "RANK_FORMS",
    "SCALINGS",
    "SPEC_VERSION",
    "WEIGHT_BITS",
    "ActivationQuantizer",
    "ActivationRange",
    "Anatomy",
    "Calibration",
    "CompressedModel",
    "EvenCodes",
    "Gradients",
    "Inputs",
    "LayerGradients",
    "LayerInfo",
    "LayerMoments",
    "LayerSpec",
    "Link",
    "Moments",
    "Pattern",
    "Reconstruction",
    "Repairs",
    "Rounding",
    "Variant",
    "VariantStore",
    "activation_quantizer",
    "applicable",
    "calibrate",
    "collect_gradients",
    "compress",
    "decode",
    "describe_file",
    "find_links",
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
    "register_rank_method",
    "register_sparsity_method",
    "register_weight_method",
    "rounding_of",
    "save_model",
    "scale_channels",
    "stored_bytes",
    "tensor_digest",
    "weight_at",
]

__getattr__, __dir__ = lazy_exports(__name__, _LAZY)
