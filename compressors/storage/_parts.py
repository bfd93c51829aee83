"""One stored matrix: codes and what they are multiplied with, or plain values; dense, or a bitmap and the survivors,
whichever is smaller.

A matrix is stored as the tensors
    format  (1,) uint8, only where the spec's format is "adaptive": the index of the one that was chosen
    bitmap  (ceil(n / 8),) uint8, only where it saves bytes: which entries are not zero
    codes   packed uint8
    scale   float32 or float16, one for each row, group, or the tensor
    zero    packed uint8, with integer zero points: one of the codes' width for each scale
    table   float32 or float16, 2^bits of them, of a palette
or of `values` instead of all after the bitmap, where the matrix is left in (or cast to) floating point.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from .._spec import LayerSpec
from ..quantization._grid import CASTS, CONCRETE, Grid, Params, Rounder
from ..quantization._problem import Coded, decoded
from ._packing import pack, pack_bits, packed_bytes, unpack, unpack_bits

NAMES = ("format", "bitmap", "codes", "values", "scale", "zero", "table")
"""In the order in which they lie in a file."""


def store_coded(coded: Coded, spec: LayerSpec) -> dict[str, Tensor]:
    """The tensors of a quantized matrix."""
    grid = coded.grid
    flat = coded.codes.reshape(-1)
    survives = (flat if grid.format == "int" else decoded(coded).reshape(-1)) != 0
    tensors = {}
    if spec.weight_format == "adaptive":
        tensors["format"] = torch.tensor([CONCRETE.index(grid.format)], dtype=torch.uint8)
    if packed_bytes(flat.numel(), 1) + packed_bytes(int(survives.sum()), grid.bits) < packed_bytes(
        flat.numel(), grid.bits
    ):
        tensors |= {"bitmap": pack_bits(survives), "codes": pack(flat[survives], grid.bits)}
    else:
        tensors["codes"] = pack(flat, grid.bits)
    tensors["scale"] = coded.params.scale.reshape(-1).to(grid.dtype)
    if coded.params.zero is not None:
        offset = 2 ** (grid.bits - 1)
        tensors["zero"] = pack((coded.params.zero.reshape(-1) - offset).to(torch.int8), grid.bits)
    if coded.params.table is not None:
        tensors["table"] = coded.params.table.to(grid.dtype)
    return tensors


def load_coded(tensors: Mapping[str, Tensor], shape: tuple[int, int], spec: LayerSpec) -> tuple[Coded, Tensor | None]:
    """What `store_coded` was given, and which entries (out, n) are not zero where it has a bitmap; the codes of the
    others mean nothing then.
    """
    grid = concrete_grid(spec, shape, tensors.get("format"))
    n = shape[0] * shape[1]
    survives = unpack_bits(tensors["bitmap"], n) if "bitmap" in tensors else None
    if survives is None:
        codes = unpack(tensors["codes"], grid.bits, n)
    else:
        codes = torch.zeros(n, dtype=torch.int8)
        codes[survives] = unpack(tensors["codes"], grid.bits, int(survives.sum()))
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
    """The float32 matrix that the codes stand for."""
    coded, survives = load_coded(tensors, shape, spec)
    values = Rounder(coded.grid, coded.params, shape).decode(coded.codes)
    return values if survives is None else torch.where(survives.reshape(shape), values, 0.0)


def concrete_grid(spec: LayerSpec, shape: tuple[int, int], format: Tensor | None) -> Grid:
    """The grid of a stored matrix; `format` is its tensor of that name. Raises `ValueError` for an unknown index."""
    grid = Grid.of(spec, shape[1])
    if spec.weight_format != "adaptive":
        return grid
    index = -1 if format is None else int(format[0])
    if not 0 <= index < len(CONCRETE) or CONCRETE[index] in CASTS:
        raise ValueError(f"there is no format of number {index}")
    return grid.as_format(CONCRETE[index])


def store_values(matrix: Tensor) -> dict[str, Tensor]:
    """The tensors of a matrix that is left in floating point."""
    flat = matrix.reshape(-1)
    survives = flat != 0
    sparse_bytes = packed_bytes(flat.numel(), 1) + int(survives.sum()) * flat.element_size()
    if sparse_bytes < flat.numel() * flat.element_size():
        return {"bitmap": pack_bits(survives), "values": flat[survives]}
    return {"values": flat.clone()}


def load_values(tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> Tensor:
    """The matrix that `store_values` was given (a negative zero may come back positive)."""
    values = tensors["values"]
    if "bitmap" not in tensors:
        return values.reshape(shape)
    n = shape[0] * shape[1]
    matrix = torch.zeros(n, dtype=values.dtype)
    matrix[unpack_bits(tensors["bitmap"], n)] = values
    return matrix.reshape(shape)
