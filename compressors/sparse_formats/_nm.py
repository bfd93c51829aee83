"""N:M format: at most N of every M neighbours in a row, and their N positions (2 bits each for 2:4).

This is what sparse tensor cores store (Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks", section 3). We
differ: M may be 2, 4, 8 or 16 and N any number, and the last group of a row may be short.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..files import Ints, packed_bytes
from ._base import Encoded, Mask, Pattern, Plan, Shape, Slots, Source, Stream, check_count, header

_LOG_M = (1, 2, 3, 4)


class Nm:
    """N:M format. Header: N and log2(M), a byte each. Stream: the positions in each group, ascending.

    Where the positions of a group take at most eight bits together, they are one number, the first position in the
    lowest bits. A group with fewer than N values holds zeros too, in its first free positions; positions after the end
    of a row hold nothing.
    """

    name = "nm"
    number = 8

    def plans(self, pattern: Pattern) -> Iterator[Plan]:
        n_rows, n_columns = pattern.shape
        for log_m in _LOG_M:
            m = 1 << log_m
            if m > n_columns:
                return
            n = int(_groups(pattern.mask, m).sum(axis=1, dtype=np.uint8).max(initial=0))
            if n == 0 or 2 * n > m:
                continue  # a bitmap says it in no more bits
            n_slots = n_rows * (n_columns // m * n + min(n, n_columns % m))
            index = packed_bytes(n_rows * -(-n_columns // m) * n, log_m)
            yield Plan(name=self.name, index_bytes=3 + index, n_slots=n_slots, choice=(n, log_m))

    def encode(self, pattern: Pattern, choice: tuple[int, int]) -> Encoded:
        n, log_m = choice
        groups = _groups(pattern.mask, 1 << log_m)
        places = np.sort(np.argsort(~groups, axis=1, kind="stable")[:, :n], axis=1)
        return Encoded(
            name=self.name,
            header=header(self.number, (n, 1), (log_m, 1)),
            streams=(_joined(places, log_m),),
            slots=_slots(places, 1 << log_m, pattern.shape),
        )

    def decode(self, source: Source, shape: Shape) -> Slots:
        n, log_m = source.number(1), source.number(1)
        if log_m not in _LOG_M:
            raise ValueError(f"groups of 2^{log_m}; known are 2, 4, 8 and 16")
        check_count(n, 1 << log_m, "values in a group")
        n_groups = shape[0] * -(-shape[1] >> log_m) if n else 0
        if n * log_m <= 8:
            joined = source.stream(n * log_m, n_groups).astype(np.int64)
            places = (joined[:, None] >> (np.arange(n) * log_m)) & ((1 << log_m) - 1)
        else:
            places = source.stream(log_m, n_groups * n).astype(np.int64).reshape(n_groups, n)
        return _slots(places, 1 << log_m, shape)


def _groups(mask: Mask, m: int) -> Mask:
    """Groups (R * groups, M); positions after the end of a row are False."""
    behind = -mask.shape[1] % m
    return (np.pad(mask, ((0, 0), (0, behind))) if behind else mask).reshape(-1, m)


def _joined(places: NDArray[np.intp], log_m: int) -> Stream:
    n = places.shape[1]
    if n * log_m > 8:
        return places.reshape(-1), log_m
    joined: Ints = (places << (np.arange(n) * log_m)).sum(axis=1)
    return joined, n * log_m


def _slots(places: Ints, m: int, shape: Shape) -> Slots:
    """Flat positions, without those after the end of a row."""
    n_groups = -(-shape[1] // m)
    group = np.arange(len(places), dtype=np.int64)
    columns = (group % max(n_groups, 1) * m)[:, None] + places
    flat = (group // max(n_groups, 1) * shape[1])[:, None] + columns
    slots: Slots = flat[columns < shape[1]]
    return slots
