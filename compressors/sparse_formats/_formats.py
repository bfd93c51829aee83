"""List of all formats; choice of the smallest for a pattern, and decoding of any of them."""

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
"""Formats by name, in the order of the numbers stored in files."""

_BY_NUMBER = {format.number: format for format in _ALL}


_LARGE = 2**16
"""Matrix size beyond which blocks are not tried for scattered zeros: two dozen shapes take half the time."""


def plans(pattern: Pattern) -> Iterator[Plan]:
    """Plans of all formats for the pattern. A large pattern without clusters of zeros gets no block formats."""
    scattered = pattern.mask.size > _LARGE and not pattern.is_clustered
    for format in SPARSE_FORMATS.values():
        if not (scattered and isinstance(format, Bsr | Blockmap)):
            yield from format.plans(pattern)


def encode(pattern: Pattern, plan: Plan) -> Encoded:
    return SPARSE_FORMATS[plan.name].encode(pattern, plan.choice)


def encode_as(pattern: Pattern, name: str, value_bits: int) -> Encoded:
    """Encode in the named format, by its smallest plan for values of that width. Raises `ValueError` where the format
    cannot hold the pattern.
    """
    found = min(SPARSE_FORMATS[name].plans(pattern), key=lambda plan: plan.n_bytes(value_bits), default=None)
    if found is None:
        raise ValueError(f"the format {name!r} cannot hold this pattern of shape {pattern.shape}")
    return encode(pattern, found)


def decode(source: Source, shape: Shape) -> tuple[str, Slots]:
    """Decode and return (the format's name, the slots). Raises `ValueError` for an unknown number, a slot outside the
    matrix or a repeated slot.
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
    """Hybrid rule for files: the format of fewest bytes for this pattern with values of `value_bits`.

    Returns None where dense storage is not larger. Of equal formats, the one with the lower number wins.

    size  function for the bytes of an encoded pattern with its values, where that is not their packed length (entropy
          coding); every plan is then encoded
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
