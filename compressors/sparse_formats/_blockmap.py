"""Blocks that hold a nonzero, with one flag for each of their entries.

It is the smallest format where nonzeros form clusters that do not fill their blocks (the kernels of a pruned
convolution).

A bitmap of two levels (Kanellopoulos et al. 2019, "SMASH", has more of them). We differ: the upper level is in whatever
format is the smallest for it, and blocks may have any shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ._base import Encoded, Format, Pattern, Plan, Shape, Slots, Source
from ._bsr import Bsr


class Blockmap:
    """BSR with one more stream: flags of the blocks' entries, eight in a number, in the order of BSR's values.

    Values are stored for set flags only.
    """

    name = "blockmap"
    number = 10

    def __init__(self, inner: Sequence[Format]) -> None:
        self._blocks = Bsr(inner)

    def plans(self, pattern: Pattern) -> Iterator[Plan]:
        for plan in self._blocks.plans(pattern):
            index_bytes = plan.index_bytes + -(-plan.n_slots // 8)
            yield Plan(name=self.name, index_bytes=index_bytes, n_slots=pattern.n, choice=plan.choice)

    def encode(self, pattern: Pattern, choice: tuple[int, int, Plan]) -> Encoded:
        blocks = self._blocks.encode(pattern, choice)
        flags = pattern.mask.reshape(-1)[blocks.slots]
        return Encoded(
            name=self.name,
            header=bytes([self.number]) + blocks.header[1:],
            streams=(*blocks.streams, (np.packbits(flags, bitorder="little"), 8)),
            slots=blocks.slots[flags],
        )

    def decode(self, source: Source, shape: Shape) -> Slots:
        slots = self._blocks.decode(source, shape)
        flags = source.stream(8, -(-len(slots) // 8)).astype(np.uint8)
        found: Slots = slots[np.unpackbits(flags, count=len(slots), bitorder="little").astype(bool)]
        return found
