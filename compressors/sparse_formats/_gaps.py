"""Distances between neighbouring nonzeros, in few bits: the smallest format for irregular zeros of about 70 % and more.

Where a distance exceeds the width, an extra slot with a zero is inserted (Han et al. 2016, "Deep Compression", section
2, relative indices). We differ: the width is the best for each matrix, not 4 or 5.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..files import packed_bytes
from ._base import Encoded, Pattern, Plan, Shape, Slots, Source, check_count, header

_WIDTHS = range(2, 13)


class Gaps:
    """Gap format. Header: bits of a step (1 byte), number of slots (4 bytes). Stream: each step minus one, from the
    slot before; the first step starts at position -1.
    """

    name = "gaps"
    number = 9

    def plans(self, pattern: Pattern) -> Iterator[Plan]:
        histogram = pattern.gap_counts
        beyond = np.arange(len(histogram)) - 1
        for bits in _WIDTHS:
            n_slots = pattern.n + int(histogram @ np.maximum(beyond >> bits, 0))
            yield Plan(name=self.name, index_bytes=6 + packed_bytes(n_slots, bits), n_slots=n_slots, choice=bits)
            if 1 << bits >= len(histogram):
                return

    def encode(self, pattern: Pattern, choice: int) -> Encoded:
        beyond = np.diff(pattern.flat, prepend=-1) - 1
        steps = np.full(pattern.n + int((beyond >> choice).sum()), (1 << choice) - 1, dtype=np.int64)
        steps[np.cumsum((beyond >> choice) + 1) - 1] = beyond & ((1 << choice) - 1)
        return Encoded(
            name=self.name,
            header=header(self.number, (choice, 1), (len(steps), 4)),
            streams=((steps, choice),),
            slots=np.cumsum(steps + 1) - 1,
        )

    def decode(self, source: Source, shape: Shape) -> Slots:
        bits = source.number(1)
        n = check_count(source.number(4), shape[0] * shape[1], "entries")
        return np.cumsum(source.stream(bits, n).astype(np.int64) + 1) - 1
