"""Coordinates (row, column) of each nonzero: the smallest format where there are fewer nonzeros than rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..files import packed_bytes
from ._base import Encoded, Pattern, Plan, Shape, Slots, Source, check_count, header, width


class Coo:
    """Coordinate format. Header: number of nonzeros (4 bytes). Streams: rows and columns, each as wide as the matrix
    needs.
    """

    name = "coo"
    number = 2

    def plans(self, pattern: Pattern) -> Iterator[Plan]:
        index = sum(packed_bytes(pattern.n, width(size)) for size in pattern.shape)
        yield Plan(name=self.name, index_bytes=5 + index, n_slots=pattern.n)

    def encode(self, pattern: Pattern, choice: Any = None) -> Encoded:
        rows, columns = np.divmod(pattern.flat, pattern.shape[1])
        return Encoded(
            name=self.name,
            header=header(self.number, (pattern.n, 4)),
            streams=tuple(zip((rows, columns), map(width, pattern.shape), strict=True)),
            slots=pattern.flat,
        )

    def decode(self, source: Source, shape: Shape) -> Slots:
        n = check_count(source.number(4), shape[0] * shape[1], "entries")
        rows, columns = (source.stream(width(size), n).astype(np.int64) for size in shape)
        if n and int(columns.max()) >= shape[1]:
            raise ValueError("an entry lies outside its matrix")
        return rows * shape[1] + columns
