"""Entropy coding of whole numbers up to eight bits wide: range asymmetric numeral systems, many lanes at a time.

Source         Duda 2013, "Asymmetric numeral systems"; lanes as in Giesen 2014, "Interleaved entropy coders"
We differ      one static table of 12-bit frequencies a stream, stored for the symbols that occur; the number of lanes
               grows with the stream, so that numpy does hundreds of symbols at a step

A coded stream, little endian:
    presence   ceil(2^bits / 8) bytes: which symbols occur
    table      12 bits each: their frequencies less one; together 4096
    lanes      2 bytes: L. Symbol i is in lane i mod L, at step i // L
    words      4 bytes: how many 16-bit words follow
    states     L times 4 bytes
    words      2 bytes each, in the order in which they are read: step by step, in a step by lane

Decoding a step: s is the symbol that the state's lowest 12 bits fall on; state = freq[s] * (state >> 12) + (state &
4095) - cumulative[s]; where that is below 2^16, the next word comes in below: state = state << 16 | word. States end
at 2^16, where encoding began: a damaged stream is found out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ._packing import Bytes, Ints, pack_ints, packed_bytes, unpack_ints

MAX_SYMBOL_BITS = 8
_PRECISION = 12
_TOTAL = 1 << _PRECISION
_LOW = 1 << 16
_STEPS = 512
_MAX_LANES = 4096


def coded_bytes(values: Ints, bits: int) -> int:
    """Estimate of the length of `encode(values, bits)` from the histogram alone, exact to a few bytes."""
    counts = np.bincount(values, minlength=1)
    counts = counts[counts > 0]
    frequencies = _normalized(counts)
    information = float(counts @ (_PRECISION - np.log2(frequencies))) / 8
    table = packed_bytes(1 << bits, 1) + packed_bytes(len(counts), _PRECISION)
    return table + 6 + 2 * _n_lanes(len(values)) + int(np.ceil(information))


def encode(values: Ints, bits: int) -> Bytes:
    """Encode `values` (n,) in [0, 2^bits - 1] as a stream, with n at least 1 and bits from 1 to 8."""
    counts = np.bincount(values, minlength=1 << bits)
    present = np.flatnonzero(counts)
    frequencies = np.zeros(1 << bits, dtype=np.uint64)
    frequencies[present] = _normalized(counts[present])
    cumulative = np.cumsum(frequencies) - frequencies
    n_lanes = _n_lanes(len(values))
    states = np.full(n_lanes, _LOW, dtype=np.uint64)
    words: list[NDArray[np.uint16]] = []
    for start in range((len(values) - 1) // n_lanes * n_lanes, -1, -n_lanes):
        symbols = values[start : start + n_lanes]
        lanes = states[: len(symbols)]
        f = frequencies[symbols]
        full = lanes >= f << np.uint64(32 - _PRECISION)
        words.append((lanes[full] & np.uint64(0xFFFF)).astype(np.uint16))
        lanes[full] >>= np.uint64(16)
        quotient, remainder = np.divmod(lanes, f)
        lanes[:] = (quotient << np.uint64(_PRECISION)) + remainder + cumulative[symbols]
    stream = np.concatenate(words[::-1])
    return np.concatenate([
        np.packbits(counts[: 1 << bits] > 0, bitorder="little"),
        pack_ints(frequencies[present].astype(np.int64) - 1, _PRECISION),
        np.array([n_lanes], dtype="<u2").view(np.uint8),
        np.array([len(stream)], dtype="<u4").view(np.uint8),
        states.astype("<u4").view(np.uint8),
        stream.astype("<u2").view(np.uint8),
    ])  # fmt: skip


def decode(coded: Bytes, bits: int, n: int) -> tuple[Ints, int]:
    """Decode a stream and return (the `n` values as uint8, the number of bytes read from `coded`). Raises `ValueError`
    for an invalid stream.
    """
    at = packed_bytes(1 << bits, 1)
    present = np.flatnonzero(np.unpackbits(_cut(coded, 0, at), count=1 << bits, bitorder="little"))
    n_table = packed_bytes(len(present), _PRECISION)
    frequencies = unpack_ints(_cut(coded, at, n_table), _PRECISION, len(present)).astype(np.uint32) + 1
    if int(frequencies.sum()) != _TOTAL:
        raise ValueError(f"the frequencies of a coded stream add up to {int(frequencies.sum())}, not {_TOTAL}")
    at += n_table
    n_lanes = int(_cut(coded, at, 2).view("<u2")[0])
    n_words = int(_cut(coded, at + 2, 4).view("<u4")[0])
    if n_lanes == 0 or n_words > n:
        raise ValueError(f"a coded stream of {n} numbers is said to have {n_lanes} lanes and {n_words} words")
    states = _cut(coded, at + 6, 4 * n_lanes).view("<u4").astype(np.uint32)
    at += 6 + 4 * n_lanes
    words = _cut(coded, at, 2 * n_words).view("<u2").astype(np.uint32)

    symbol_of = np.repeat(present.astype(np.uint8), frequencies)
    frequency_of = np.repeat(frequencies, frequencies)
    rest_of = (np.arange(_TOTAL) - np.repeat(np.cumsum(frequencies) - frequencies, frequencies)).astype(np.uint32)
    values = np.empty(n, dtype=np.uint8)
    read = 0
    for start in range(0, n, n_lanes):
        lanes = states[: n - start] if n - start < n_lanes else states
        low = lanes & (_TOTAL - 1)
        values[start : start + n_lanes] = symbol_of[low]
        lanes >>= _PRECISION
        lanes *= frequency_of[low]
        lanes += rest_of[low]
        short = np.flatnonzero(lanes < _LOW)
        if len(short):
            if read + len(short) > n_words:
                raise ValueError("a coded stream ends too early")
            lanes[short] = lanes[short] << 16 | words[read : read + len(short)]
            read += len(short)
    if read != n_words or bool((states != _LOW).any()):
        raise ValueError("a coded stream does not end where it began")
    return values, at + 2 * n_words


def _n_lanes(n: int) -> int:
    return max(1, min(n // _STEPS, _MAX_LANES))


def _normalized(counts: Ints) -> NDArray[np.int64]:
    """Integer frequencies that sum to 4096, none of them 0, as close to the counts as possible."""
    exact = counts * (_TOTAL / int(counts.sum()))
    frequencies: NDArray[np.int64] = np.maximum(np.floor(exact), 1).astype(np.int64)
    while (missing := _TOTAL - int(frequencies.sum())) != 0:
        # what one more (or one less) is worth to each symbol, in bits
        step = 1 if missing > 0 else -1
        changed = np.maximum(frequencies + step, 1)
        gain = counts * (np.log2(changed) - np.log2(frequencies))
        gain[changed == frequencies] = -np.inf
        best = np.argsort(-gain, kind="stable")[: abs(missing)]
        best = best[np.isfinite(gain[best])]
        frequencies[best] += step
    return frequencies


def _cut(data: Bytes, start: int, n: int) -> Bytes:
    if start + n > len(data):
        raise ValueError("a coded stream is too short")
    return data[start : start + n]
