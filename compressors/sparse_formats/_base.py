"""Protocol of a sparse format: it stores *where* a matrix has values, apart from the values themselves.

A format turns a pattern (which entries of a matrix (R, C) are not zero) into

    header   a few bytes: counts and widths
    streams  whole numbers, each stream of one width in bits, as small as the header allows
    slots    the flat positions (row * C + column) that values are stored for, in the order in which they are stored

and back. Every entry outside the slots is zero. Slots are distinct; some may hold zeros too, where that makes the
positions cheaper (blocks, diagonals, rows of one length, fillers). So codes of any width, palettes and floating point
go with every format, and a file says where and what in two separate streams.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..files import Bytes, Ints, pack_ints, packed_bytes, unpack_ints

Shape = tuple[int, int]
Mask = NDArray[np.bool_]
Slots = NDArray[np.int64]
Stream = tuple[Ints, int]
"""Numbers, and their width in bits."""


_PIECE = 1 << 17
"""Positions processed in one step."""


class Pattern:
    """Positions of the nonzeros of a matrix, with statistics that several formats need."""

    def __init__(self, mask: Mask) -> None:
        if mask.ndim != 2:
            raise ValueError(f"a pattern is a matrix (rows, columns), got shape {mask.shape}")
        self.mask = mask
        self._blocks: dict[Shape, Pattern] = {}

    @property
    def shape(self) -> Shape:
        return self.mask.shape[0], self.mask.shape[1]

    @cached_property
    def flat(self) -> Slots:
        """Flat positions of the nonzeros, ascending."""
        return np.flatnonzero(self.mask).astype(np.int64, copy=False)

    @property
    def n(self) -> int:
        return len(self.flat)

    @property
    def density(self) -> float:
        return self.n / max(self.mask.size, 1)

    @cached_property
    def per_row(self) -> Ints:
        counts: Ints = np.count_nonzero(self.mask, axis=1)
        return counts

    @cached_property
    def per_column(self) -> Ints:
        counts: Ints = np.count_nonzero(self.mask, axis=0)
        return counts

    @cached_property
    def transposed(self) -> Pattern:
        return Pattern(np.ascontiguousarray(self.mask.T))

    @cached_property
    def gap_counts(self) -> Ints:
        """Counts of the distances between neighbouring nonzeros, by distance; the first counts from position -1.

        Computed in pieces: for a large dense matrix all distances at once would take eight times the memory of its
        mask.
        """
        counts, before = np.zeros(1, dtype=np.int64), -1
        for start in range(0, self.n, _PIECE):
            piece = self.flat[start : start + _PIECE]
            found = np.bincount(np.diff(piece, prepend=before), minlength=len(counts))
            found[: len(counts)] += counts
            counts, before = found, int(piece[-1])
        return counts

    @cached_property
    def is_clustered(self) -> bool:
        """Tell whether neighbours in rows or columns are alike more often than scattered nonzeros would be."""
        rarer = min(self.density, 1.0 - self.density)
        beside = [self.mask[:, 1:] & self.mask[:, :-1], self.mask[1:] & self.mask[:-1]]
        covariances = [np.count_nonzero(both) / both.size - self.density**2 for both in beside if both.size]
        return max(covariances, default=0.0) > 0.1 * rarer**2 + 0.005 * rarer

    def blocks(self, rows: int, columns: int) -> Pattern:
        """Blocks of this shape that hold a nonzero; those at the edges may be smaller."""
        if (rows, columns) not in self._blocks:
            self._blocks[rows, columns] = self._of_blocks(rows, columns)
        return self._blocks[rows, columns]

    def _of_blocks(self, rows: int, columns: int) -> Pattern:
        found = self.mask
        if columns > 1:
            found = np.logical_or.reduceat(found, np.arange(0, found.shape[1], columns), axis=1)
        if rows > 1:
            found = np.logical_or.reduceat(found, np.arange(0, found.shape[0], rows), axis=0)
        return Pattern(found)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Encoded:
    """Pattern encoded in one format; see the module's docstring. `name` is the format's name."""

    name: str
    header: bytes
    streams: tuple[Stream, ...]
    slots: Slots

    @property
    def index(self) -> Bytes:
        """Streams, each packed into whole bytes, concatenated."""
        packed = [pack_ints(values, bits) for values, bits in self.streams]
        return np.concatenate(packed) if packed else np.zeros(0, dtype=np.uint8)

    @property
    def n_bytes(self) -> int:
        """Bytes of header and streams."""
        return len(self.header) + sum(packed_bytes(len(values), bits) for values, bits in self.streams)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Cost of a pattern in one format, computed without encoding it.

    index_bytes  header and streams
    n_slots      values to be stored
    choice       what the format needs to encode it so (a block's shape, a width)
    """

    name: str
    index_bytes: int
    n_slots: int
    choice: Any = None

    def n_bytes(self, value_bits: int) -> int:
        return self.index_bytes + packed_bytes(self.n_slots, value_bits)


class Source(Protocol):
    """Source of bytes for decoding a format."""

    def number(self, n_bytes: int) -> int:
        """Read an unsigned number of the header, little endian."""
        ...

    def stream(self, bits: int, n: int) -> Ints:
        """Read the next stream. Raises `ValueError` where too few bytes are left."""
        ...


class Format(Protocol):
    """One sparse format. Users give its name; files store its number."""

    name: str
    number: int

    def plans(self, pattern: Pattern) -> Iterator[Plan]:
        """Ways to store the pattern in this format; empty where there is none."""
        ...

    def encode(self, pattern: Pattern, choice: Any) -> Encoded:
        """Encode by the `choice` of one of the plans; the header begins with the format's number."""
        ...

    def decode(self, source: Source, shape: Shape) -> Slots:
        """Decode the slots; the format's number has been read before. Raises `ValueError` for invalid data."""
        ...


@dataclass(slots=True)
class ByteSource:
    """Header and streams of a pattern, read from two arrays. `streams` keeps the streams read so far."""

    header: bytes
    index: Bytes
    streams: list[Stream] = field(default_factory=list)
    _header_at: int = 0
    _index_at: int = 0

    def number(self, n_bytes: int) -> int:
        if self._header_at + n_bytes > len(self.header):
            raise ValueError("the header of a sparse matrix is too short")
        self._header_at += n_bytes
        return int.from_bytes(self.header[self._header_at - n_bytes : self._header_at], "little")

    def stream(self, bits: int, n: int) -> Ints:
        check_width(bits)
        values = unpack_ints(self.index[self._index_at :], bits, n)
        self._index_at += packed_bytes(n, bits)
        self.streams.append((values, bits))
        return values


def width(n: int) -> int:
    """Bits of a number from 0 to n - 1; 0 where only one number is possible."""
    return max(n - 1, 0).bit_length()


def check_width(bits: int) -> None:
    if not 0 <= bits <= 32:
        raise ValueError(f"a stream of {bits} bits; at most 32 are possible")


def check_count(n: int, limit: int, what: str) -> int:
    if n > limit:
        raise ValueError(f"{n} {what}, where at most {limit} are possible")
    return n


def header(number: int, *fields: tuple[int, int]) -> bytes:
    """Header with the format's number and its fields (value, bytes), little endian."""
    return bytes([number]) + b"".join(value.to_bytes(n_bytes, "little") for value, n_bytes in fields)
