"""Meaning of a code: `scale * (level - zero)`, where a level is the code itself or an entry of a table.

A matrix (R, C) is cut into groups along its rows: (R, G) scales, G = ceil(C / group). One scale for the tensor is
(1, 1), and of blocks of several rows there are (ceil(R / tall), G). Codes are int8 within [-2^(b-1), 2^(b-1) - 1] in
every format, which is what is packed:

    int       the number itself (8 bits: from -127)
    int_asym  the number above the lowest: level = code + 2^(b-1), with an integer zero point for each group
    others    the index in the sorted table, less 2^(b-1)

FP16 and BF16 have neither codes nor scales; they are no grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...errors import SpecError
from ..values import FORMAT_BITS, WHOLE_TENSOR, LayerSpec
from ._affine import code_range
from ._tables import fixed_table

CASTS = {"fp16": torch.float16, "bf16": torch.bfloat16}
TABLES = ("palette", "nf4", "pow2", "log", "apot", "fp8_e4m3", "fp8_e5m2")
CONCRETE = tuple(name for name in FORMAT_BITS if name != "adaptive")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Format, width and sharing of scales, as `LayerSpec` describes them, for a matrix of known shape.

    group  columns that share a scale, at most all of them; `per_tensor`: one scale for everything
    tall   rows that share it
    """

    format: str
    bits: int
    group: int
    per_tensor: bool
    half_scales: bool
    tall: int = 1

    @classmethod
    def of(cls, spec: LayerSpec, n_columns: int) -> Grid:
        tall, size = spec.block
        group = min(size, n_columns) if size > 0 else n_columns
        return cls(
            format=spec.weight_format,
            bits=spec.weight_bits,
            group=group,
            per_tensor=spec.group_size == WHOLE_TENSOR,
            half_scales=spec.scale_bits == 16,
            tall=tall,
        )

    def as_format(self, format: str) -> Grid:
        return replace(self, format=format)

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the stored scales and tables."""
        return torch.float16 if self.half_scales else torch.float32

    @property
    def has_table(self) -> bool:
        return self.format in TABLES

    @property
    def code_range(self) -> tuple[int, int]:
        if self.format == "int":
            return code_range(self.bits)
        half = 2 ** (self.bits - 1)
        if self.format in ("int_asym", "palette"):
            return -half, half - 1
        return -half, len(fixed_table(self.format, self.bits)) - half - 1

    def scale_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        return (1, 1) if self.per_tensor else (-(-shape[0] // self.tall), -(-shape[1] // self.group))

    def stored_scale(self, scale: Tensor) -> Tensor:
        """`scale` in float32 as it will be read back. Raises `SpecError` where FP16 cannot hold it."""
        if not self.half_scales:
            return scale
        largest = float(scale.max())
        if largest > torch.finfo(torch.float16).max:
            raise SpecError(f"scale_bits = 16 holds scales up to 65504, and {largest:.3g} is needed; use 32")
        return scale.half().clamp(min=2.0**-24).float()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Params:
    """Parameters that turn the codes of one matrix into values.

    scale  (R, G) or (1, 1) float32, positive, exactly representable in the stored type
    zero   same shape, integers as float32; with int_asym only
    table  sorted float32; for a palette only
    """

    scale: Tensor
    zero: Tensor | None = None
    table: Tensor | None = None


class Rounder:
    """Nearest codewords under fixed parameters, for a whole matrix or for one column at a time.

    All arithmetic is float32 and elementwise, so a value is the same bits wherever and however often it is computed.
    """

    def __init__(self, grid: Grid, params: Params, shape: tuple[int, int]) -> None:
        self.grid = grid
        self.params = params
        self.scale = _spread(params.scale, grid, shape)
        self.zero = None if params.zero is None else _spread(params.zero, grid, shape)
        self.half = 2 ** (grid.bits - 1)
        self.low, self.high = grid.code_range
        if grid.has_table:
            table = params.table if grid.format == "palette" else fixed_table(grid.format, grid.bits)
            if table is None:
                raise SpecError("a palette needs its table")
            self.table = table
            self.middles = (table[1:].double() + table[:-1].double()).mul_(0.5).float()

    def levels(self, scaled: Tensor, zero: Tensor | None) -> Tensor:
        """Nearest level, minus the zero point, of weights already divided by their scale."""
        if self.grid.has_table:
            found: Tensor = self.table[torch.bucketize(scaled.contiguous(), self.middles)]
            return found
        if zero is None:
            return scaled.round().clamp_(self.low, self.high)
        return torch.minimum(torch.maximum(scaled.round(), -zero), 2 * self.half - 1 - zero)

    def values(self, matrix: Tensor) -> Tensor:
        """Nearest representable matrix."""
        return self.levels(matrix / self.scale, self.zero) * self.scale

    def codes(self, values: Tensor) -> Tensor:
        """Codes, int8, of the codewords nearest to `values`; exact for results of `values` or `levels`."""
        scaled = values / self.scale
        found: Tensor
        if self.grid.has_table:
            found = torch.bucketize(scaled.contiguous(), self.middles) - self.half
        elif self.zero is None:
            found = self.levels(scaled, None)
        else:
            found = self.levels(scaled, self.zero) + self.zero - self.half
        return found.to(torch.int8)

    def decode(self, codes: Tensor) -> Tensor:
        """Decode codes (R, C) int8 to float32 values."""
        levels: Tensor
        if self.grid.has_table:
            levels = self.table[(codes.to(torch.int64) + self.half).clamp_(max=len(self.table) - 1)]
        elif self.zero is None:
            levels = codes.to(torch.float32)
        else:
            levels = codes.to(torch.float32) + float(self.half) - self.zero
        return levels * self.scale


def _spread(values: Tensor, grid: Grid, shape: tuple[int, int]) -> Tensor:
    """Expand (R, G) to (R, C), or to (R, 1) where a row has one group; (1, 1) stays."""
    if grid.tall > 1:
        values = values.repeat_interleave(grid.tall, dim=0)[: shape[0]].contiguous()
    if values.shape[1] == 1:
        return values
    return values.repeat_interleave(grid.group, dim=1)[:, : shape[1]].contiguous()


def to_groups(matrix: Tensor, grid: Grid) -> Tensor:
    """Reshape (R, C) to (R * G, group), with zeros after the last columns; `per_tensor` gives the whole tensor as one
    row.

    Each block becomes a row, with zeros below the last rows too.
    """
    if grid.per_tensor:
        return matrix.reshape(1, -1)
    rows, columns = matrix.shape
    n_down, n_groups = grid.scale_shape((rows, columns))
    if (n_down * grid.tall, n_groups * grid.group) != (rows, columns):
        matrix = torch.nn.functional.pad(matrix, (0, n_groups * grid.group - columns, 0, n_down * grid.tall - rows))
    if grid.tall == 1:
        return matrix.reshape(rows * n_groups, grid.group)
    blocks = matrix.reshape(n_down, grid.tall, n_groups, grid.group).transpose(1, 2)
    return blocks.reshape(n_down * n_groups, grid.tall * grid.group).contiguous()


def from_groups(rows: Tensor, grid: Grid, shape: tuple[int, int]) -> Tensor:
    """Inverse of `to_groups`: the matrix (R, C) from its rows."""
    if grid.per_tensor:
        return rows.reshape(shape)
    n_down, n_groups = grid.scale_shape(shape)
    whole = rows.reshape(n_down, n_groups, grid.tall, grid.group).transpose(1, 2)
    return whole.reshape(n_down * grid.tall, -1)[: shape[0], : shape[1]].contiguous()
