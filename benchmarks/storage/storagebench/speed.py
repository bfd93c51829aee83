"""How fast records are read again, plain and entropy-coded; and the coder alone. For an idle machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from paredown.compressors import decode
from paredown.compressors.files import _entropy, pack_ints, unpack_ints
from paredown.compressors.storage import Reader, entropy_record, weight_record

from .layers import Layer
from .measure import _bytes

_ROUNDS = 25


def layer_speed(layer: Layer) -> dict[str, Any]:
    """Milliseconds (10th percentile, in turns) from the record to the effective weight."""
    variant, shape = layer.variant, tuple(layer.weight.shape)
    records = {
        "plain": _bytes(weight_record(variant.spec, variant.tensors)),
        "entropy": _bytes(entropy_record(variant.spec, variant.tensors, shape)),
    }

    def reading(name: str) -> Callable[[], object]:
        return lambda: decode(variant.spec, shape, Reader(records[name], name).weight(shape, torch.float32)[1])

    ms = _interleaved({name: reading(name) for name in records})
    return {"layer": layer.name, "weights": layer.weight.numel(), "ms": ms}


def coder_speed(n: int, bits: int) -> dict[str, Any]:
    """Numbers a second, of a stream like the codes of normal weights."""
    half = 2 ** (bits - 1)
    values = np.random.default_rng(0).normal(size=n) * half / 3.5
    codes = np.clip(np.round(values), -half, half - 1).astype(np.int64) + half
    coded, packed = _entropy.encode(codes, bits), pack_ints(codes, bits)
    ms = _interleaved({
        "decode": lambda: _entropy.decode(coded, bits, n),
        "encode": lambda: _entropy.encode(codes, bits),
        "unpack": lambda: unpack_ints(packed, bits, n),
    })  # fmt: skip
    return {
        "n": n, "bits": bits, "bytes": {"packed": len(packed), "coded": len(coded)},
        "million_per_s": {name: n / 1e3 / value for name, value in ms.items()},
    }  # fmt: skip


def _interleaved(timed: dict[str, Callable[[], object]]) -> dict[str, float]:
    rng = np.random.default_rng(0)
    ms: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(_ROUNDS):
        for name in rng.permutation(list(timed)).tolist():
            start = time.perf_counter()
            timed[name]()
            ms[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.percentile(values, 10)) for name, values in ms.items()}
