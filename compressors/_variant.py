"""The compressed form of one weight, and how it is read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ._spec import FLOAT_BITS, LayerSpec
from .lowrank import kept_rank
from .quantization._grid import CASTS
from .storage._parts import load_coded, load_matrix, load_values

FACTORS = ("u.", "v.")
WHOLE = ("",)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Variant:
    """One weight under one `LayerSpec`.

    spec          its `weight_only` part
    effective     dense, of the weight's shape: what the weight is worth now. float32 where it was quantized or
                  factorized, else the weight's own dtype. Not to be written to
    tensors       exactly what the artifact stores for it (see `storage/_parts.py`); for low rank the names begin
                  with `u.` and `v.`
    weight_error  squared error relative to the original, ‖W - Ŵ‖² / ‖W‖²; 0 where both are zero
    """

    spec: LayerSpec
    effective: Tensor
    tensors: dict[str, Tensor]
    weight_error: float = 0.0

    @property
    def n_bytes(self) -> int:
        """Bytes of the stored tensors; what describes them is counted by `layer_bytes`."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def codes(self) -> tuple[Tensor, Tensor] | None:
        """(codes int8 of the weight's shape, scale (out,) float32); None unless the weight is whole and plain integers
        (`LayerSpec.is_plain_int`).

        `codes * scale`, the scale along axis 0, is bit for bit `effective`.
        """
        if not self.spec.is_plain_int or self.spec.rank < 1.0:
            return None
        shape = tuple(self.effective.shape)
        coded, _ = load_coded(self.tensors, _matrix_shape(shape), self.spec)
        return coded.codes.reshape(shape), coded.params.scale.reshape(-1).expand(shape[0]).contiguous()

    def integers(self) -> tuple[Tensor, Tensor, Tensor | None] | None:
        """(codes (out, n) int8, scales (out, groups) float32, zeros (out, groups) int8 or None) of a whole weight in
        the formats "int" and "int_asym", whatever shares a scale; None for another.

        `(codes - zeros) * scales`, with the scales and zeros along the rows' groups, is bit for bit `effective`.
        """
        if self.spec.weight_format not in ("int", "int_asym") or self.spec.weight_bits > 8 or self.spec.rank < 1.0:
            return None
        shape = _matrix_shape(tuple(self.effective.shape))
        coded, survives = load_coded(self.tensors, shape, self.spec)
        codes, zero = coded.codes, coded.params.zero
        if zero is not None:
            zero = (zero - 2 ** (self.spec.weight_bits - 1)).to(torch.int8).expand(shape[0], -1)
            if survives is not None:  # of a dropped weight the code means nothing: it is what stands for zero
                at_zero = zero.repeat_interleave(coded.grid.group, dim=1)[:, : shape[1]]
                codes = torch.where(survives.reshape(shape), codes, at_zero)
        return codes, coded.params.scale.expand(shape[0], -1), zero

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """(u (out, r), v (r, in * kernel)) float32, after sparsity and quantization; None for a whole weight."""
        if self.spec.rank >= 1.0:
            return None
        return _factors(self.spec, tuple(self.effective.shape), self.tensors)


def part_shapes(spec: LayerSpec, shape: tuple[int, ...]) -> dict[str, tuple[int, int]]:
    """Prefix -> shape of each stored matrix: the weight itself, or its two factors."""
    rows, columns = _matrix_shape(shape)
    if spec.rank >= 1.0:
        return {WHOLE[0]: (rows, columns)}
    rank = kept_rank(spec.rank, (rows, columns))
    return {FACTORS[0]: (rows, rank), FACTORS[1]: (rank, columns)}


def decode(spec: LayerSpec, shape: tuple[int, ...], tensors: Mapping[str, Tensor]) -> Tensor:
    """The effective weight of this shape, from what is stored; the very bits that `Variant.effective` has.

    Where a weight was factorized the product is taken in float64 and rounded once, so that the order in which a
    machine sums does not show.
    """
    if spec.rank >= 1.0:
        return _matrix(spec, part_shapes(spec, shape)[""], tensors).reshape(shape)
    u, v = _factors(spec, shape, tensors)
    return (u.double() @ v.double()).float().reshape(shape)


def _factors(spec: LayerSpec, shape: tuple[int, ...], tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    u, v = (
        _matrix(
            spec, part_shape, {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        )
        for prefix, part_shape in part_shapes(spec, shape).items()
    )
    return u.float(), v.float()


def _matrix(spec: LayerSpec, shape: tuple[int, int], tensors: Mapping[str, Tensor]) -> Tensor:
    if spec.weight_bits == FLOAT_BITS:
        return load_values(tensors, shape)
    if spec.weight_format in CASTS:
        return load_values(tensors, shape).to(torch.float32)
    return load_matrix(tensors, shape, spec)


def _matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], prod(shape[1:])
