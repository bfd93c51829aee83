"""ELLPACK: equal numbers of values in every row, and their columns. It is the smallest format where rows are alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..files import packed_bytes
from ._base import Encoded, Pattern, Plan, Shape, Slots, Source, check_count, header, width


class Ell:
    """ELLPACK. Header: values in a row (4 bytes). Stream: their columns. A row with fewer nonzeros holds zeros too, in
    its first free columns.
    """

    name = "ell"
    number = 6

    def plans(self, pattern: Pattern) -> Iterator[Plan]:
        n_rows, n_columns = pattern.shape
        n_slots = n_rows * int(pattern.per_row.max(initial=0))
        yield Plan(name=self.name, index_bytes=5 + packed_bytes(n_slots, width(n_columns)), n_slots=n_slots)

    def encode(self, pattern: Pattern, choice: Any = None) -> Encoded:
        n_rows, n_columns = pattern.shape
        n = int(pattern.per_row.max(initial=0))
        columns = np.sort(np.argsort(~pattern.mask, axis=1, kind="stable")[:, :n], axis=1)
        return Encoded(
            name=self.name,
            header=header(self.number, (n, 4)),
            streams=((columns.reshape(-1), width(n_columns)),),
            slots=(columns + np.arange(n_rows, dtype=np.int64)[:, None] * n_columns).reshape(-1),
        )

    def decode(self, source: Source, shape: Shape) -> Slots:
        n = check_count(source.number(4), shape[1], "entries in a row")
        columns = source.stream(width(shape[1]), shape[0] * n).astype(np.int64)
        if len(columns) and int(columns.max()) >= shape[1]:
            raise ValueError("an entry lies outside its matrix")
        return np.repeat(np.arange(shape[0], dtype=np.int64) * shape[1], n) + columns
