"""Bitmap with one flag for each entry: the smallest format for densities from a tenth to nearly one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ._base import Encoded, Pattern, Plan, Shape, Slots, Source, header


class Bitmap:
    """No header; one stream of bytes, eight entries each, the first in the lowest bit. The spare bits are 0."""

    name = "bitmap"
    number = 1

    def plans(self, pattern: Pattern) -> Iterator[Plan]:
        yield Plan(name=self.name, index_bytes=1 + -(-pattern.mask.size // 8), n_slots=pattern.n)

    def encode(self, pattern: Pattern, choice: Any = None) -> Encoded:
        flags = np.packbits(pattern.mask, axis=None, bitorder="little")
        return Encoded(name=self.name, header=header(self.number), streams=((flags, 8),), slots=pattern.flat)

    def decode(self, source: Source, shape: Shape) -> Slots:
        n = shape[0] * shape[1]
        flags = np.unpackbits(source.stream(8, -(-n // 8)).astype(np.uint8), count=n, bitorder="little")
        return np.flatnonzero(flags).astype(np.int64)
