"""The formats that there are, and the two questions that a file asks: in which one, and where were the values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import MappingProxyType

import numpy as np

from ._base import Encoded, Format, Pattern, Plan, Shape, Slots, Source
from ._bitmap import Bitmap
from ._blockmap import Blockmap
from ._bsr import Bsr
from ._coo import Coo
from ._csr import Csc, Csr
from ._dia import Dia
from ._ell import Ell
from ._gaps import Gaps
from ._nm import Nm

_PLAIN: tuple[Format, ...] = (Bitmap(), Coo(), Csr(), Csc(), Gaps())
_ALL: tuple[Format, ...] = (*_PLAIN, Bsr(_PLAIN), Ell(), Dia(), Nm(), Blockmap(_PLAIN))
SPARSE_FORMATS = MappingProxyType({format.name: format for format in sorted(_ALL, key=lambda f: f.number)})
"""By name, in the order of the numbers that stand in files."""

_BY_NUMBER = {format.number: format for format in _ALL}


_LARGE = 2**16
"""Entries beyond which blocks are not looked for where zeros are scattered: two dozen shapes take half the time."""


def plans(pattern: Pattern) -> Iterator[Plan]:
    """Every way to write the pattern down; of a large one without clusters of zeros not those in blocks."""
    scattered = pattern.mask.size > _LARGE and not pattern.is_clustered
    for format in SPARSE_FORMATS.values():
        if not (scattered and isinstance(format, Bsr | Blockmap)):
            yield from format.plans(pattern)


def encode(pattern: Pattern, plan: Plan) -> Encoded:
    return SPARSE_FORMATS[plan.name].encode(pattern, plan.choice)


def encode_as(pattern: Pattern, name: str, value_bits: int) -> Encoded:
    """In the format of this name, the smallest way for values of that width. Raises `ValueError` where it cannot hold
    the pattern.
    """
    found = min(SPARSE_FORMATS[name].plans(pattern), key=lambda plan: plan.n_bytes(value_bits), default=None)
    if found is None:
        raise ValueError(f"the format {name!r} cannot hold this pattern of shape {pattern.shape}")
    return encode(pattern, found)


def decode(source: Source, shape: Shape) -> tuple[str, Slots]:
    """(the format's name, the slots). Raises `ValueError` for an unknown number, an entry outside the matrix, or one
    that comes twice.
    """
    number = source.number(1)
    if number not in _BY_NUMBER:
        raise ValueError(f"there is no sparse format of number {number}")
    format = _BY_NUMBER[number]
    slots = format.decode(source, shape)
    if len(slots) and (int(slots.min()) < 0 or int(slots.max()) >= shape[0] * shape[1]):
        raise ValueError("an entry lies outside its matrix")
    seen = np.zeros(shape[0] * shape[1], dtype=bool)
    seen[slots] = True
    if int(np.count_nonzero(seen)) != len(slots):
        raise ValueError("an entry comes twice")
    return format.name, slots


def smallest(pattern: Pattern, value_bits: int, *, size: Callable[[Encoded], int] | None = None) -> Encoded | None:
    """The hybrid rule for files: the format that needs the fewest bytes for this pattern with values of `value_bits`;
    None where storing every entry does. Of equals the one with the lower number, of a dense one and a sparse the dense.

    size  bytes of an encoded pattern with its values, where that is not their packed length (entropy coding); every
          way is then encoded
    """
    if size is not None:
        ways = [encode(pattern, plan) for plan in plans(pattern)]
        return min(ways, key=size, default=None)
    if pattern.n == pattern.mask.size:
        return None
    best = min(plans(pattern), key=lambda plan: plan.n_bytes(value_bits))
    if best.n_bytes(value_bits) >= -(-pattern.mask.size * value_bits // 8):
        return None
    return encode(pattern, best)
