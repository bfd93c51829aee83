"""One stored matrix: codes and scales, or plain values; dense, or a bitmap and the survivors, whichever is smaller.

A matrix is stored as the tensors
    bitmap  (ceil(n / 8),) uint8, only where it saves bytes: which entries are not zero
    codes   packed uint8, with `scale` (out,) float32; or `values`, where the matrix is left in floating point
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ._packing import pack, pack_bits, packed_bytes, unpack, unpack_bits


def store_codes(codes: Tensor, scale: Tensor, bits: int) -> dict[str, Tensor]:
    """The tensors of a quantized matrix: `codes` (out, n) int8, `scale` (out,) float32."""
    flat = codes.reshape(-1)
    survives = flat != 0
    n_survivors = int(survives.sum())
    sparse_bytes = packed_bytes(flat.numel(), 1) + packed_bytes(n_survivors, bits)
    if sparse_bytes < packed_bytes(flat.numel(), bits):
        return {"bitmap": pack_bits(survives), "codes": pack(flat[survives], bits), "scale": scale}
    return {"codes": pack(flat, bits), "scale": scale}


def load_codes(tensors: Mapping[str, Tensor], shape: tuple[int, int], bits: int) -> tuple[Tensor, Tensor]:
    """(codes (out, n) int8, scale (out,)) from what `store_codes` made."""
    n = shape[0] * shape[1]
    if "bitmap" not in tensors:
        return unpack(tensors["codes"], bits, n).reshape(shape), tensors["scale"]
    survives = unpack_bits(tensors["bitmap"], n)
    codes = torch.zeros(n, dtype=torch.int8)
    codes[survives] = unpack(tensors["codes"], bits, int(survives.sum()))
    return codes.reshape(shape), tensors["scale"]


def store_values(matrix: Tensor) -> dict[str, Tensor]:
    """The tensors of a matrix that is left in floating point."""
    flat = matrix.reshape(-1)
    survives = flat != 0
    sparse_bytes = packed_bytes(flat.numel(), 1) + int(survives.sum()) * flat.element_size()
    if sparse_bytes < flat.numel() * flat.element_size():
        return {"bitmap": pack_bits(survives), "values": flat[survives]}
    return {"values": flat.clone()}


def load_values(tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> Tensor:
    """The matrix that `store_values` was given (a negative zero may come back positive)."""
    values = tensors["values"]
    if "bitmap" not in tensors:
        return values.reshape(shape)
    n = shape[0] * shape[1]
    matrix = torch.zeros(n, dtype=values.dtype)
    matrix[unpack_bits(tensors["bitmap"], n)] = values
    return matrix.reshape(shape)
