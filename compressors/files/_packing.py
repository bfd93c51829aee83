"""Codes, positions and flags packed into as few bits as they need. The least significant bit comes first."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bytes = NDArray[np.uint8]
Ints = NDArray[np.integer[Any]]

_BLOCK = 2**18
"""Numbers packed in one step, a multiple of 8. It bounds memory: a wide layer needs a byte for each binary digit."""
MAX_BITS = 32


def packed_bytes(n: int, bits: int) -> int:
    """Bytes that `n` numbers of this width take."""
    return -(-n * bits // 8)


def pack_ints(values: Ints, bits: int) -> Bytes:
    """Pack `values` (n,) in [0, 2^bits - 1] into (ceil(n * bits / 8),) bytes; bits from 0 (all values are 0) to 32."""
    if bits in (8, 16, 32):
        return values.astype(f"<u{bits // 8}").view(np.uint8)
    if bits == 0 or len(values) == 0:
        return np.zeros(0, dtype=np.uint8)
    places = np.arange(bits, dtype=np.uint32)
    blocks = []
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK].astype(np.uint8 if bits < 8 else np.uint32)
        digits = (block[:, None] >> places.astype(block.dtype)) & 1
        blocks.append(np.packbits(digits.astype(np.uint8), axis=None, bitorder="little"))
    return np.concatenate(blocks)


def unpack_ints(packed: Bytes, bits: int, n: int) -> Ints:
    """Unpack the `n` numbers that `pack_ints` packed, as uint8 up to 8 bits and int64 beyond. Raises `ValueError` where
    there are too few bytes.
    """
    if len(packed) < packed_bytes(n, bits):
        raise ValueError(f"{n} numbers of {bits} bits need {packed_bytes(n, bits)} bytes, got {len(packed)}")
    kind = np.uint8 if bits <= 8 else np.int64
    if bits == 0 or n == 0:
        return np.zeros(n, dtype=kind)
    if bits in (8, 16, 32):
        return packed[: packed_bytes(n, bits)].view(f"<u{bits // 8}").astype(kind)
    places: Ints = (1 << np.arange(bits)).astype(kind)
    step = packed_bytes(_BLOCK, bits)
    blocks = []
    for i, start in enumerate(range(0, packed_bytes(n, bits), step)):
        n_here = min(_BLOCK, n - i * _BLOCK)
        digits = np.unpackbits(packed[start : start + step], count=n_here * bits, bitorder="little")
        blocks.append(np.matmul(digits.reshape(n_here, bits), places, dtype=kind))
    return np.concatenate(blocks)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack `codes` (n,) int8 in [-2^(bits-1), 2^(bits-1) - 1] into (ceil(n * bits / 8),) uint8."""
    return torch.from_numpy(pack_ints(to_unsigned(codes, bits), bits))


def unpack(packed: Tensor, bits: int, n: int) -> Tensor:
    """Unpack the `n` codes that `pack` packed, as int8."""
    return to_codes(unpack_ints(packed.numpy(), bits, n), bits)


def to_unsigned(codes: Tensor, bits: int) -> Ints:
    """Unsigned form of codes, as packed: the difference from the lowest code, uint8."""
    return (codes.detach().cpu().numpy().astype(np.int16) + (1 << (bits - 1))).astype(np.uint8)


def to_codes(unsigned: Ints, bits: int) -> Tensor:
    return torch.from_numpy((unsigned.astype(np.int16) - (1 << (bits - 1))).astype(np.int8))
