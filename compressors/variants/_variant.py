"""Compressed form of one weight, and its decoding."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ..lowrank import PARTS, part_kernels, product
from ..lowrank import part_shapes as factor_shapes
from ..quantization import CASTS
from ..values import FLOAT_BITS, LayerSpec
from ._encoding import load_coded, load_matrix, load_values

WHOLE = ("",)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvenCodes:
    """Matrix as (code - zero) * scale, equal to its effective weight bit for bit.

    codes  (rows, columns) uint8
    scale  (rows, groups) float32; `zero` likewise, uint8
    group  columns that share a scale; the last group may be short
    bits   of the codes
    has_zeros  whether the format stores zero points; else all are the middle code
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor
    group: int
    bits: int
    has_zeros: bool

    def signed(self) -> tuple[Tensor, Tensor | None]:
        """(codes, zeros) int8, shifted by the middle code; no zeros where the format has none."""
        half = 2 ** (self.bits - 1)
        codes, zero = ((x.to(torch.int16) - half).to(torch.int8) for x in (self.codes, self.zero))
        return codes, zero if self.has_zeros else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Variant:
    """One weight under one `LayerSpec`.

    spec          its `weight_only` part
    effective     dense, of the weight's shape: what the weight is worth now. float32 where it was quantized or
                  factorized, else the weight's own dtype. Not to be written to
    tensors       exactly what the artifact stores for it (see `storage/_parts.py`); for low rank the names begin
                  with the part's prefix (`lowrank._forms.PARTS`): `u.` and `v.`, say
    weight_error  squared error relative to the original, ‖W - Ŵ‖² / ‖W‖²; 0 where both are zero
    """

    spec: LayerSpec
    effective: Tensor
    tensors: dict[str, Tensor]
    weight_error: float = 0.0

    @property
    def n_bytes(self) -> int:
        """Bytes of the stored tensors; `layer_bytes` adds the bytes of their description."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def codes(self) -> tuple[Tensor, Tensor] | None:
        """(codes int8 of the weight's shape, scale (out,) float32) of a whole weight in plain integers; else None.

        See `LayerSpec.is_plain_int`. `codes * scale`, the scale along axis 0, is bit for bit `effective`.
        """
        if not self.spec.is_plain_int or self.spec.rank < 1.0:
            return None
        shape = tuple(self.effective.shape)
        coded, _ = load_coded(self.tensors, _matrix_shape(shape), self.spec)
        return coded.codes.reshape(shape), coded.params.scale.reshape(-1).expand(shape[0]).contiguous()

    def even_codes(self) -> EvenCodes | None:
        """Codes of a whole weight of integers on an even grid ("int", "int_asym"), with or without groups along a row;
        else None.

        None also for blocks of several rows.
        """
        if self.spec.weight_bits > 8 or self.spec.weight_format not in ("int", "int_asym") or self.spec.rank < 1.0:
            return None
        rows, columns = _matrix_shape(tuple(self.effective.shape))
        coded, survives = load_coded(self.tensors, (rows, columns), self.spec)
        if coded.grid.tall > 1:
            return None
        half = 2 ** (self.spec.weight_bits - 1)
        scale = coded.params.scale.expand(rows, coded.params.scale.shape[1]).contiguous()
        zero = coded.params.zero
        has_zeros = zero is not None
        zero = torch.full_like(scale, half) if zero is None else zero.expand_as(scale).contiguous()
        group = coded.grid.group if scale.shape[1] > 1 else columns
        codes = coded.codes.to(torch.int16) + half
        if survives is not None:
            spread = zero.to(torch.int16).repeat_interleave(group, dim=1)[:, :columns]
            codes = torch.where(survives.reshape(rows, columns), codes, spread)
        return EvenCodes(
            codes=codes.to(torch.uint8), scale=scale, zero=zero.to(torch.uint8), group=group,
            bits=self.spec.weight_bits, has_zeros=has_zeros,
        )  # fmt: skip

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """(u (out, r), v (r, in * kernel)) float32, after sparsity and quantization.

        None for a whole weight, and for forms of low rank without two such factors (see `parts`).
        """
        if self.spec.rank >= 1.0 or self.spec.rank_form != "channel":
            return None
        parts = self.parts()
        return parts["u."], parts["v."]

    def parts(self) -> dict[str, Tensor]:
        """Prefix -> float32 matrix of each stored part, after sparsity and quantization; the last meets the input."""
        return _decoded_parts(self.spec, tuple(self.effective.shape), self.tensors)


def prefixes(spec: LayerSpec) -> tuple[str, ...]:
    """Prefixes of the stored matrices, in the order in which they lie in a file."""
    return WHOLE if spec.rank >= 1.0 else PARTS[spec.rank_form]


def part_spec(spec: LayerSpec, prefix: str) -> LayerSpec:
    """Treatment of one stored matrix.

    The two factors of a residual are never sparse and have at least 8 bits: the rest must compensate for their errors.
    """
    if spec.rank >= 1.0 or spec.rank_form != "residual" or prefix == "w.":
        return spec
    dense = spec.without("sparsity")
    return dense if spec.weight_bits >= 16 else dataclasses.replace(dense.without("weight_bits"), weight_bits=8)


def part_kernel(spec: LayerSpec, prefix: str, shape: tuple[int, ...]) -> int:
    """Kernel positions of a stored matrix."""
    return prod(shape[2:]) if spec.rank >= 1.0 else part_kernels(spec.rank_form, shape)[prefix]


def part_shapes(spec: LayerSpec, shape: tuple[int, ...]) -> dict[str, tuple[int, int]]:
    """Prefix -> shape of each stored matrix: the weight itself, or the parts that it was split into."""
    if spec.rank >= 1.0:
        return {WHOLE[0]: _matrix_shape(shape)}
    return factor_shapes(spec.rank_form, spec.rank, shape)


def decode(spec: LayerSpec, shape: tuple[int, ...], tensors: Mapping[str, Tensor]) -> Tensor:
    """Decode the effective weight of this shape from the stored tensors; equal to `Variant.effective` bit for bit.

    The product of a factorized weight is taken in float64 and rounded once, so that the order in which a machine sums
    does not show. A zero is positive, as the unsummed product of rank one may give a negative one.
    """
    if spec.rank >= 1.0:
        return _matrix(spec, part_shapes(spec, shape)[""], tensors).reshape(shape)
    parts = {prefix: part.double() for prefix, part in _decoded_parts(spec, shape, tensors).items()}
    return (product(spec.rank_form, parts, shape).float() + 0.0).reshape(shape)


def _decoded_parts(spec: LayerSpec, shape: tuple[int, ...], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        prefix: _matrix(
            part_spec(spec, prefix), part_shape,
            {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)},
        ).float()
        for prefix, part_shape in part_shapes(spec, shape).items()
    }  # fmt: skip


def _matrix(spec: LayerSpec, shape: tuple[int, int], tensors: Mapping[str, Tensor]) -> Tensor:
    if spec.weight_bits == FLOAT_BITS:
        return load_values(tensors, shape)
    if spec.weight_format in CASTS:
        return load_values(tensors, shape).to(torch.float32)
    return load_matrix(tensors, shape, spec)


def _matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], prod(shape[1:])
