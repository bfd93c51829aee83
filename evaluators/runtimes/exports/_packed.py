"""Codes of any width up to 8 bits in int32 words, as the compressed-tensors library lays them out.

A code c of b bits is stored as c + 2^(b-1), the lowest bit first, code after code without a gap; what does not fit into
a word goes on in the next. The last word of a row is filled up with zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def pack_words(codes: Array, bits: int) -> Array:
    """Pack (R, C) int8 to (R, ceil(C * bits / 32)) int32."""
    rows, columns = codes.shape
    shifted = (codes.astype(np.int16) + 2 ** (bits - 1)).astype(np.uint8)
    stream = np.unpackbits(shifted[:, :, None], axis=2, bitorder="little")[:, :, :bits].reshape(rows, columns * bits)
    stream = np.pad(stream, ((0, 0), (0, -stream.shape[1] % 32)))
    packed: Array = np.ascontiguousarray(np.packbits(stream, axis=1, bitorder="little")).view("<i4")
    return packed


def unpack_words(words: Array, bits: int, columns: int) -> Array:
    """Inverse of `pack_words`: (R, W) int32 to (R, columns) int8."""
    rows = words.shape[0]
    stream = np.unpackbits(np.ascontiguousarray(words, "<i4").view(np.uint8), axis=1, bitorder="little")
    codes = np.packbits(stream[:, : columns * bits].reshape(rows, columns, bits), axis=2, bitorder="little")[:, :, 0]
    found: Array = (codes.astype(np.int16) - 2 ** (bits - 1)).astype(np.int8)
    return found
