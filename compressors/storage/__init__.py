"""Bytes on disk: bit-packing, checksummed safetensors files, and the file of a compressed model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_exports

if TYPE_CHECKING:
    from ..files._container import read_container, verify_container, write_container
    from ._model_file import describe_file, load_model, save_model, stored_integers, stored_weights
    from ._sizes import fixed_bytes, layer_bytes, stored_bytes

# Lazy, because the file of a model knows variants, and variants know bit-packing.
_LAZY = {
    "read_container": "._container",
    "verify_container": "._container",
    "write_container": "._container",
    "describe_file": "._model_file",
    "load_model": "._model_file",
    "save_model": "._model_file",
    "stored_integers": "._model_file",
    "stored_weights": "._model_file",
    "fixed_bytes": "._sizes",
    "layer_bytes": "._sizes",
    "stored_bytes": "._sizes",
}

__all__ = [
    "describe_file",
    "fixed_bytes",
    "layer_bytes",
    "load_model",
    "read_container",
    "save_model",
    "stored_bytes",
    "stored_integers",
    "stored_weights",
    "verify_container",
    "write_container",
]

__getattr__, __dir__ = lazy_exports(__name__, _LAZY)
