"""Whole blocks that hold a nonzero: the smallest format where the nonzeros stand together.

The positions of the blocks are a pattern themselves, stored in its smallest format; classical BSR stores them as CSR.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ._base import Encoded, Format, Pattern, Plan, Shape, Slots, Source, header

_WIDTHS = (2, 3, 4, 8, 9, 16, 25, 32)


class Bsr:
    """Block sparse rows. Header: rows and columns of a block (2 bytes each), then the header of the pattern of blocks.
    Streams: those of that pattern.

    Values come block by block, and row by row in a block. Blocks at the edges are cut to the matrix.
    """

    name = "bsr"
    number = 5

    def __init__(self, inner: Sequence[Format]) -> None:
        self._inner = inner

    def plans(self, pattern: Pattern) -> Iterator[Plan]:
        """One plan for each shape of blocks, its pattern in the smallest format."""
        for rows, columns in _block_shapes(pattern.shape):
            grid = pattern.blocks(rows, columns)
            ways = [plan for format in self._inner for plan in format.plans(grid)]
            inner = min(ways, key=lambda plan: plan.index_bytes + plan.n_slots * rows * columns // 2)
            heights, widths = _sizes(rows, pattern.shape[0]), _sizes(columns, pattern.shape[1])
            n_slots = int(heights @ grid.mask.astype(np.int64) @ widths)
            if inner.n_slots > grid.n:
                n_slots = len(self.encode(pattern, (rows, columns, inner)).slots)
            yield Plan(
                name=self.name,
                index_bytes=5 + inner.index_bytes,
                n_slots=n_slots,
                choice=(rows, columns, inner),
            )

    def encode(self, pattern: Pattern, choice: tuple[int, int, Plan]) -> Encoded:
        rows, columns, plan = choice
        format = next(f for f in self._inner if f.name == plan.name)
        inner = format.encode(pattern.blocks(rows, columns), plan.choice)
        return Encoded(
            name=self.name,
            header=header(self.number, (rows, 2), (columns, 2)) + inner.header,
            streams=inner.streams,
            slots=_expanded(inner.slots, rows, columns, pattern.shape),
        )

    def decode(self, source: Source, shape: Shape) -> Slots:
        rows, columns, number = source.number(2), source.number(2), source.number(1)
        if not (1 <= rows <= shape[0] and 1 <= columns <= shape[1]):
            raise ValueError(f"blocks of {rows} x {columns} in a matrix of {shape[0]} x {shape[1]}")
        format = next((f for f in self._inner if f.number == number), None)
        if format is None:
            raise ValueError(f"blocks whose places are in a format of number {number}, which there is not")
        grid = (-(-shape[0] // rows), -(-shape[1] // columns))
        slots = format.decode(source, grid)
        if len(slots) and (int(slots.max()) >= grid[0] * grid[1] or len(slots) > grid[0] * grid[1]):
            raise ValueError("a block lies outside its matrix")
        return _expanded(slots, rows, columns, shape)


def _block_shapes(shape: Shape) -> list[tuple[int, int]]:
    """Shapes of blocks to try: pieces of rows and columns (3 x 3 and 5 x 5 kernels among them), squares, whole rows and
    whole columns.
    """
    n_rows, n_columns = shape
    shapes = [(1, n) for n in _WIDTHS] + [(n, 1) for n in _WIDTHS] + [(n, n) for n in (2, 4, 8, 16, 32)]
    shapes += [(1, n_columns), (n_rows, 1)]
    fitting = [(r, c) for r, c in shapes if r <= min(n_rows, 65535) and c <= min(n_columns, 65535) and (r, c) != (1, 1)]
    return list(dict.fromkeys(fitting))


def _sizes(step: int, size: int) -> Slots:
    """Sizes of the blocks along one axis; the last may be smaller."""
    starts = np.arange(0, size, step, dtype=np.int64)
    sizes: Slots = np.minimum(starts + step, size) - starts
    return sizes


def _expanded(blocks: Slots, rows: int, columns: int, shape: Shape) -> Slots:
    """Flat positions of the entries of blocks, without those outside the matrix."""
    block_row, block_column = np.divmod(blocks, -(-shape[1] // columns))
    row = (block_row * rows)[:, None, None] + np.arange(rows, dtype=np.int64)[None, :, None]
    column = (block_column * columns)[:, None, None] + np.arange(columns, dtype=np.int64)[None, None, :]
    inside = (row < shape[0]) & (column < shape[1])
    slots: Slots = (row * shape[1] + column)[inside]
    return slots
