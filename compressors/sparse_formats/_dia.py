"""Whole diagonals that hold a nonzero: the smallest format for banded matrices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..files import Ints, packed_bytes
from ._base import Encoded, Pattern, Plan, Shape, Slots, Source, check_count, header, width


class Dia:
    """Diagonal format. Header: number of diagonals (4 bytes). Stream: column - row + (R - 1) of each, ascending.

    The values of a diagonal come from the top down, without positions outside the matrix.
    """

    name = "dia"
    number = 7

    def plans(self, pattern: Pattern) -> Iterator[Plan]:
        n_rows, n_columns = pattern.shape
        offsets = _offsets(pattern)
        n_slots = int(_lengths(offsets, pattern.shape).sum())
        index = packed_bytes(len(offsets), width(n_rows + n_columns - 1))
        yield Plan(name=self.name, index_bytes=5 + index, n_slots=n_slots)

    def encode(self, pattern: Pattern, choice: Any = None) -> Encoded:
        offsets = _offsets(pattern)
        return Encoded(
            name=self.name,
            header=header(self.number, (len(offsets), 4)),
            streams=((offsets, width(sum(pattern.shape) - 1)),),
            slots=_along(offsets, pattern.shape),
        )

    def decode(self, source: Source, shape: Shape) -> Slots:
        n = check_count(source.number(4), sum(shape) - 1, "diagonals")
        offsets = source.stream(width(sum(shape) - 1), n).astype(np.int64)
        if n and int(offsets.max()) >= sum(shape) - 1:
            raise ValueError("a diagonal lies outside its matrix")
        return _along(offsets, shape)


def _offsets(pattern: Pattern) -> Ints:
    n_rows, n_columns = pattern.shape
    holds = np.zeros(max(n_rows + n_columns - 1, 0), dtype=np.bool_)
    for row, mask in enumerate(pattern.mask):
        holds[n_rows - 1 - row :][:n_columns] |= mask
    return np.flatnonzero(holds)


def _lengths(offsets: Ints, shape: Shape) -> Ints:
    first = np.maximum(shape[0] - 1 - offsets, 0)
    last = np.minimum(shape[0], shape[1] + shape[0] - 1 - offsets)
    lengths: Ints = last - first
    return lengths


def _along(offsets: Ints, shape: Shape) -> Slots:
    lengths = _lengths(offsets, shape)
    first_rows = np.maximum(shape[0] - 1 - offsets, 0)
    steps = np.arange(int(lengths.sum()), dtype=np.int64) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    rows = np.repeat(first_rows, lengths) + steps
    slots: Slots = rows * shape[1] + rows + np.repeat(offsets - (shape[0] - 1), lengths)
    return slots
