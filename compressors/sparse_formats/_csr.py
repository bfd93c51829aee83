"""Compressed rows (CSR) or columns (CSC): the length of each, and the positions in it.

Lengths are stored in place of pointers, which are their sums and wider.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..files import Ints, packed_bytes
from ._base import Encoded, Pattern, Plan, Shape, Slots, Source, header, width


class Csr:
    """Compressed rows. Header: bits of a length (1 byte). Streams: each row's length, each nonzero's column."""

    name = "csr"
    number = 3

    def plans(self, pattern: Pattern) -> Iterator[Plan]:
        yield Plan(name=self.name, index_bytes=_index_bytes(pattern.per_row, pattern.shape[1]), n_slots=pattern.n)

    def encode(self, pattern: Pattern, choice: Any = None) -> Encoded:
        head, streams = _encode(self.number, pattern.per_row, pattern.flat % pattern.shape[1], pattern.shape[1])
        return Encoded(name=self.name, header=head, streams=streams, slots=pattern.flat)

    def decode(self, source: Source, shape: Shape) -> Slots:
        rows, columns = _decode(source, *shape)
        return rows * shape[1] + columns


class Csc:
    """Compressed columns: CSR of the transposed matrix; values too come column by column."""

    name = "csc"
    number = 4

    def plans(self, pattern: Pattern) -> Iterator[Plan]:
        yield Plan(name=self.name, index_bytes=_index_bytes(pattern.per_column, pattern.shape[0]), n_slots=pattern.n)

    def encode(self, pattern: Pattern, choice: Any = None) -> Encoded:
        n_rows, n_columns = pattern.shape
        columns, rows = np.divmod(pattern.transposed.flat, n_rows)
        head, streams = _encode(self.number, pattern.per_column, rows, n_rows)
        return Encoded(name=self.name, header=head, streams=streams, slots=rows * n_columns + columns)

    def decode(self, source: Source, shape: Shape) -> Slots:
        columns, rows = _decode(source, shape[1], shape[0])
        return rows * shape[1] + columns


def _length_bits(lengths: Ints) -> int:
    return int(lengths.max(initial=0)).bit_length()


def _index_bytes(lengths: Ints, size: int) -> int:
    n = int(lengths.sum())
    return 2 + packed_bytes(len(lengths), _length_bits(lengths)) + packed_bytes(n, width(size))


def _encode(number: int, lengths: Ints, places: Ints, size: int) -> tuple[bytes, tuple[tuple[Ints, int], ...]]:
    bits = _length_bits(lengths)
    return header(number, (bits, 1)), ((lengths, bits), (places, width(size)))


def _decode(source: Source, n_lines: int, size: int) -> tuple[Slots, Slots]:
    """(line, position in it) of each nonzero."""
    lengths = source.stream(source.number(1), n_lines).astype(np.int64)
    if len(lengths) and int(lengths.max()) > size:
        raise ValueError(f"a line of {size} entries is said to have {int(lengths.max())}")
    places = source.stream(width(size), int(lengths.sum())).astype(np.int64)
    if len(places) and int(places.max()) >= size:
        raise ValueError("an entry lies outside its matrix")
    return np.repeat(np.arange(n_lines, dtype=np.int64), lengths), places
