"""One layer: the records as they stand in a file, the floor, and what general compressors make of the same bytes."""

from __future__ import annotations

import lzma
import zlib
from importlib.util import find_spec
from typing import Any

import numpy as np
from torch import Tensor, frombuffer, uint8

from paredown.compressors import FLOAT_BITS
from paredown.compressors.storage import Reader, entropy_record, weight_record
from paredown.compressors.storage._model_file import _stored_as
from paredown.compressors.variants import load_coded, part_shapes

from .floor import entropy_bits, position_bits
from .layers import Layer


def measure(layer: Layer) -> dict[str, Any]:
    """Bytes of the layer's whole record (its spec, codes, positions, scales), and of the floor.

    floor   codes and positions, and beside them `side_bytes`: scales and tables as they are stored, and the spec's text
    """
    variant, shape = layer.variant, tuple(layer.weight.shape)
    (matrix,) = part_shapes(variant.spec, shape).values()
    effective = variant.effective.reshape(matrix)
    mask = (effective != 0).numpy()
    positions = position_bits(mask)
    least = min(positions, key=lambda name: positions[name])
    plain, coded = weight_record(variant.spec, variant.tensors), entropy_record(variant.spec, variant.tensors, shape)
    in_file = sum(
        variant.tensors[name].nbytes for name in ("codes", "values", "layout", "index") if name in variant.tensors
    )
    side = len(plain) - in_file
    floor = (_value_bits(layer, mask) + positions[least]) / 8
    return {
        "layer": layer.name,
        "structure": layer.structure,
        "spec": layer.spec.label(),
        "shape": list(shape),
        "zeros": float(1 - mask.mean()),
        "stored": {"plain": _stored_as(variant.tensors)[0], "entropy": _stored(coded, shape)},
        "dense_fp32_bytes": layer.weight.numel() * 4,
        "bytes": {"plain": len(plain), "entropy": len(coded), **_general(plain)},
        "side_bytes": side,
        "floor_bytes": floor,
        "positions_as": least,
        "over_floor": {
            name: (length - side) / floor - 1 for name, length in (("plain", len(plain)), ("entropy", len(coded)))
        },
        "over_floor_with_side": {
            name: length / floor - 1 for name, length in (("plain", len(plain)), ("entropy", len(coded)))
        },
    }


def _value_bits(layer: Layer, mask: np.ndarray) -> float:
    variant = layer.variant
    if variant.spec.weight_bits == FLOAT_BITS:
        return float(mask.sum()) * 32
    coded, _ = load_coded(variant.tensors, mask.shape, variant.spec)
    return entropy_bits(coded.codes.numpy()[mask])


def _stored(record: bytes, shape: tuple[int, ...]) -> str:
    """The sparse format in a record."""
    import torch

    _, tensors = Reader(_bytes(record), "record").weight(shape, torch.float32)
    return _stored_as(tensors)[0]


def _bytes(record: bytes) -> Tensor:
    return frombuffer(bytearray(record), dtype=uint8)


def _general(record: bytes) -> dict[str, int | None]:
    """The same record by compressors that know nothing of it; None where one is not installed."""
    found: dict[str, int | None] = {
        "zlib": len(zlib.compress(record, 9)),
        "lzma": len(lzma.compress(record, format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9}])),
        "zstd": None,
    }
    if find_spec("zstandard") is not None:
        import zstandard

        found["zstd"] = len(zstandard.ZstdCompressor(level=19).compress(record))
    return found
