"""Encoding of one stored matrix: codes with their scales, or plain values.

Either every entry is stored, or the entries of the smallest sparse format for its zeros.

A matrix is stored as the tensors
    format  (1,) uint8, only where the spec's format is "adaptive": the index of the chosen format
    layout  uint8, only where a sparse format saves bytes: its header (see `compressors/sparse_formats`)
    index   uint8, with `layout`: the packed streams with the positions of the values
    codes   packed uint8, of every entry or of the layout's slots
    scale   float32 or float16, one for each row, group, or the tensor
    zero    packed uint8, with integer zero points: one of the codes' width for each scale
    table   float32 or float16, 2^bits of them, of a palette
or of `values` instead of codes and all after them, where the matrix stays in (or is cast to) floating point.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
import torch
from torch import Tensor

from ..files import MAX_SYMBOL_BITS, Ints, coded_bytes, pack, packed_bytes, to_unsigned, unpack
from ..quantization import CASTS, CONCRETE, Coded, Grid, Params, Rounder, decoded
from ..sparse_formats import ByteSource, Encoded, Pattern, decode, smallest
from ..values import LayerSpec

NAMES = ("format", "layout", "index", "codes", "values", "scale", "zero", "table")
"""Names of stored tensors, in the order in which they lie in a file."""


def store_coded(coded: Coded, spec: LayerSpec, *, entropy: bool = False) -> dict[str, Tensor]:
    """Tensors of a quantized matrix.

    entropy  choose the layout that is smallest once its streams, and the codes, are entropy-coded
    """
    grid = coded.grid
    flat = coded.codes.reshape(-1)
    survives = coded.codes != 0 if grid.format == "int" else decoded(coded) != 0
    tensors = {}
    if spec.weight_format == "adaptive":
        tensors["format"] = torch.tensor([CONCRETE.index(grid.format)], dtype=torch.uint8)
    layout = _layout(survives, grid.bits, to_unsigned(flat, grid.bits) if entropy else None)
    if layout is not None:
        tensors |= _layout_tensors(layout)
        flat = flat[torch.from_numpy(layout.slots)]
    tensors["codes"] = pack(flat, grid.bits)
    tensors["scale"] = coded.params.scale.reshape(-1).to(grid.dtype)
    if coded.params.zero is not None:
        offset = 2 ** (grid.bits - 1)
        tensors["zero"] = pack((coded.params.zero.reshape(-1) - offset).to(torch.int8), grid.bits)
    if coded.params.table is not None:
        tensors["table"] = coded.params.table.to(grid.dtype)
    return tensors


def load_coded(tensors: Mapping[str, Tensor], shape: tuple[int, int], spec: LayerSpec) -> tuple[Coded, Tensor | None]:
    """Inverse of `store_coded`, and the mask (out, n) of entries with a code where there is a layout.

    The other entries are zero, whatever code they have here.
    """
    grid = concrete_grid(spec, shape, tensors.get("format"))
    n = shape[0] * shape[1]
    slots = slots_of(tensors, shape)
    survives = None
    if slots is None:
        codes = unpack(tensors["codes"], grid.bits, n)
    else:
        codes, survives = torch.zeros(n, dtype=torch.int8), torch.zeros(n, dtype=torch.bool)
        codes[slots] = unpack(tensors["codes"], grid.bits, len(slots))
        survives[slots] = True
    scales = grid.scale_shape(shape)
    zero = None
    if grid.format == "int_asym":
        zero = unpack(tensors["zero"], grid.bits, prod(scales)).float().add_(2 ** (grid.bits - 1)).reshape(scales)
    params = Params(
        scale=tensors["scale"].float().reshape(scales),
        zero=zero,
        table=tensors["table"].float() if grid.format == "palette" else None,
    )
    return Coded(codes=codes.reshape(shape), params=params, grid=grid), survives


def load_matrix(tensors: Mapping[str, Tensor], shape: tuple[int, int], spec: LayerSpec) -> Tensor:
    """Float32 matrix that the codes stand for."""
    coded, survives = load_coded(tensors, shape, spec)
    values = Rounder(coded.grid, coded.params, shape).decode(coded.codes)
    return values if survives is None else torch.where(survives.reshape(shape), values, 0.0)


def concrete_grid(spec: LayerSpec, shape: tuple[int, int], format: Tensor | None) -> Grid:
    """Grid of a stored matrix; `format` is its tensor of that name. Raises `ValueError` for an unknown index."""
    grid = Grid.of(spec, shape[1])
    if spec.weight_format != "adaptive":
        return grid
    index = -1 if format is None else int(format[0])
    if not 0 <= index < len(CONCRETE) or CONCRETE[index] in CASTS:
        raise ValueError(f"there is no format of number {index}")
    return grid.as_format(CONCRETE[index])


def store_values(matrix: Tensor, *, entropy: bool = False) -> dict[str, Tensor]:
    """Tensors of a matrix that stays in floating point. `entropy` as in `store_coded`; values are not coded."""
    flat = matrix.reshape(-1)
    bits = 8 * flat.element_size()
    layout = _layout(matrix != 0, bits, np.zeros(0, dtype=np.uint8) if entropy else None)
    if layout is None:
        return {"values": flat.clone()}
    return {**_layout_tensors(layout), "values": flat[torch.from_numpy(layout.slots)]}


def load_values(tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> Tensor:
    """Inverse of `store_values` (a negative zero may come back positive)."""
    values = tensors["values"]
    slots = slots_of(tensors, shape)
    if slots is None:
        return values.reshape(shape)
    matrix = torch.zeros(shape[0] * shape[1], dtype=values.dtype)
    matrix[slots] = values
    return matrix.reshape(shape)


def slots_of(tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> Tensor | None:
    """Flat positions of the stored values, in their order; None where every entry is stored."""
    if "layout" not in tensors:
        return None
    return torch.from_numpy(decode(index_source(tensors), shape)[1])


def index_source(tensors: Mapping[str, Tensor]) -> ByteSource:
    return ByteSource(tensors["layout"].numpy().tobytes(), tensors["index"].numpy())


def stream_bytes(values: Ints, bits: int) -> int:
    """Bytes of a stream that may be entropy-coded (an estimate; see `coded_bytes`)."""
    packed = packed_bytes(len(values), bits)
    return min(packed, coded_bytes(values, bits)) if len(values) and 1 <= bits <= MAX_SYMBOL_BITS else packed


def _layout(survives: Tensor, bits: int, codes: Ints | None) -> Encoded | None:
    """Smallest sparse format; None where dense storage is not larger.

    codes  of every entry, where streams will be entropy-coded; empty where values will not be coded
    """
    pattern = Pattern(survives.detach().cpu().numpy())
    if codes is None:
        return smallest(pattern, bits)

    def values_bytes(slots: slice | Ints, n: int) -> int:
        return stream_bytes(codes[slots], bits) if len(codes) else packed_bytes(n, bits)

    def size(layout: Encoded) -> int:
        index = sum(1 + stream_bytes(values, width) for values, width in layout.streams)
        return len(layout.header) + index + values_bytes(layout.slots, len(layout.slots))

    best = smallest(pattern, bits, size=size)
    dense = values_bytes(slice(None), pattern.mask.size)
    return best if best is not None and size(best) < dense else None


def _layout_tensors(layout: Encoded) -> dict[str, Tensor]:
    header = torch.frombuffer(bytearray(layout.header), dtype=torch.uint8)
    return {"layout": header, "index": torch.from_numpy(layout.index)}
