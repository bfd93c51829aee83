"""Codes and zeros in as few bits as they need. Bits are laid down least significant first."""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 2**18
"""Codes that are packed together, a multiple of 8: a wide layer's digits, two bytes each, are never all there."""


def packed_bytes(n: int, bits: int) -> int:
    """How many bytes `n` codes of this width take."""
    return -(-n * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """(ceil(n * bits / 8),) uint8 of `codes` (n,) int8 within [-2^(bits-1), 2^(bits-1) - 1]."""
    return torch.cat([_pack(block, bits) for block in codes.split(_BLOCK)])


def _pack(codes: Tensor, bits: int) -> Tensor:
    unsigned = codes.to(torch.int16) + (1 << (bits - 1))
    if bits == 8:
        return unsigned.to(torch.uint8)
    places = torch.arange(bits, dtype=torch.int16)
    return pack_bits(torch.bitwise_and(unsigned[:, None] >> places, 1).reshape(-1).bool())


def unpack(packed: Tensor, bits: int, n: int) -> Tensor:
    """The `n` codes, int8, that `pack` was given."""
    if bits == 8:
        return (packed[:n].to(torch.int16) - 128).to(torch.int8)
    blocks = packed.split(packed_bytes(_BLOCK, bits))
    return torch.cat([_unpack(block, bits, min(_BLOCK, n - i * _BLOCK)) for i, block in enumerate(blocks)])


def _unpack(packed: Tensor, bits: int, n: int) -> Tensor:
    digits = unpack_bits(packed, n * bits).reshape(n, bits).to(torch.int16)
    weights = 2 ** torch.arange(bits, dtype=torch.int16)
    return (torch.sum(digits * weights, dim=1) - (1 << (bits - 1))).to(torch.int8)


def pack_bits(flags: Tensor) -> Tensor:
    """(ceil(n / 8),) uint8 of `flags` (n,) bool; the spare bits of the last byte are 0."""
    padded = torch.zeros(packed_bytes(flags.numel(), 1) * 8, dtype=torch.uint8)
    padded[: flags.numel()] = flags
    places = torch.arange(8, dtype=torch.uint8)
    return torch.sum(padded.reshape(-1, 8) << places, dim=1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, n: int) -> Tensor:
    """The `n` flags, bool, that `pack_bits` was given."""
    places = torch.arange(8, dtype=torch.uint8)
    return torch.bitwise_and(packed[:, None] >> places, 1).reshape(-1)[:n].bool()
