"""Estimate of the stored bytes of a layer, which orders levels before anything is compressed."""

from __future__ import annotations

import dataclasses
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...compressors import LayerInfo, LayerSpec


def estimate_bytes(layer: LayerInfo, spec: LayerSpec) -> int:
    """Approximate bytes that the weight of a layer takes in a file under `spec`."""
    rows, columns = layer.matrix_shape
    if spec.rank >= 1.0:
        return _matrix_bytes(rows, columns, spec)
    from ...compressors.lowrank import part_shapes  # that package needs torch

    shapes = part_shapes(spec.rank_form, spec.rank, layer.weight_shape)
    rest = shapes.pop("w.", None)
    if rest is None:
        return sum(_matrix_bytes(out, inner, spec) for out, inner in shapes.values())
    factors = spec.without("sparsity")
    if spec.weight_bits < 8:
        factors = dataclasses.replace(factors, weight_bits=8, weight_format="int", group_size=0)
    return _matrix_bytes(*rest, spec) + sum(_matrix_bytes(out, inner, factors) for out, inner in shapes.values())


def _matrix_bytes(rows: int, columns: int, spec: LayerSpec) -> int:
    n = rows * columns
    scales = 0
    if spec.weight_bits < 16:
        tall, size = spec.block
        n_scales = 1 if spec.group_size == "tensor" else ceil(rows / tall) * (ceil(columns / size) if size else 1)
        scales = n_scales * spec.scale_bits // 8
        scales += ceil(n_scales * spec.weight_bits / 8) if spec.weight_format == "int_asym" else 0
        scales += 2**spec.weight_bits * spec.scale_bits // 8 if spec.weight_format == "palette" else 0
    dense = ceil(n * spec.weight_bits / 8)
    if spec.sparsity == 0.0:
        return dense + scales
    return min(dense, ceil(n / 8) + ceil(n * (1.0 - spec.sparsity) * spec.weight_bits / 8)) + scales
