"""The registry of methods by name, and the inverse Hessian that GPTQ, SparseGPT and OBS share.

It knows `values` alone: methods register themselves. Begin with `_registry.py`, whose docstring is the protocol of a
method. `compressors/_catalogue.py` knows every method that is built in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_exports

if TYPE_CHECKING:
    from ._inverse_hessian import DAMPING, damped, inverse_factor
    from ._registry import (
        ACTIVATION,
        NEEDS,
        RANK,
        REGISTRIES,
        SPARSITY,
        WEIGHT,
        SparsityMethod,
        register_activation_method,
        register_rank_method,
        register_sparsity_method,
        register_weight_method,
    )

_HOMES = {
    "._inverse_hessian": (
        "DAMPING",
        "damped",
        "inverse_factor",
    ),
    "._registry": (
        "ACTIVATION",
        "NEEDS",
        "RANK",
        "REGISTRIES",
        "SPARSITY",
        "SparsityMethod",
        "WEIGHT",
        "register_activation_method",
        "register_rank_method",
        "register_sparsity_method",
        "register_weight_method",
    ),
}

__all__ = [
    "ACTIVATION",
    "DAMPING",
    "NEEDS",
    "RANK",
    "REGISTRIES",
    "SPARSITY",
    "WEIGHT",
    "SparsityMethod",
    "damped",
    "inverse_factor",
    "register_activation_method",
    "register_rank_method",
    "register_sparsity_method",
    "register_weight_method",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
