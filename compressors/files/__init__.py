"""Bytes in files: the checksummed container, bit packing, entropy coding, digests of tensors.

It knows no other room. Begin with `_container.py`. Another way to pack integers belongs in `_packing.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_exports

if TYPE_CHECKING:
    from ._container import header_bytes, read_container, verify_container, write_container
    from ._digest import model_digest, tensor_bytes, tensor_digest
    from ._entropy import MAX_SYMBOL_BITS, coded_bytes, decode, encode
    from ._packing import Bytes, Ints, pack, pack_ints, packed_bytes, to_unsigned, unpack, unpack_ints

_HOMES = {
    "._container": (
        "header_bytes",
        "read_container",
        "verify_container",
        "write_container",
    ),
    "._digest": (
        "model_digest",
        "tensor_bytes",
        "tensor_digest",
    ),
    "._entropy": (
        "MAX_SYMBOL_BITS",
        "coded_bytes",
        "decode",
        "decode",
        "encode",
    ),
    "._packing": (
        "Bytes",
        "Ints",
        "pack",
        "pack_ints",
        "packed_bytes",
        "to_unsigned",
        "unpack",
        "unpack_ints",
    ),
}

__all__ = [
    "MAX_SYMBOL_BITS",
    "Bytes",
    "Ints",
    "coded_bytes",
    "decode",
    "encode",
    "header_bytes",
    "model_digest",
    "pack",
    "pack_ints",
    "packed_bytes",
    "read_container",
    "tensor_bytes",
    "tensor_digest",
    "to_unsigned",
    "unpack",
    "unpack_ints",
    "verify_container",
    "write_container",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
