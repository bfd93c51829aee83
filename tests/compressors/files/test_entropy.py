"""Entropy coding of streams: to the bit, near the floor, and never wrong in silence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.compressors.files import coded_bytes, decode, encode


def floor_bytes(values: np.ndarray) -> float:
    counts = np.bincount(values)
    counts = counts[counts > 0]
    return float(counts @ np.log2(len(values) / counts)) / 8


def normal(n: int, bits: int, seed: int = 0) -> np.ndarray:
    half = 2 ** (bits - 1)
    values = np.random.default_rng(seed).normal(size=n) * half / 3.5
    return np.clip(np.round(values), -half, half - 1).astype(np.int64) + half


def test_one_lane_by_hand() -> None:
    """Two symbols, three to one. The states are worked out with the formula in the module's head, from 2^16:
    1 has frequency 3072 behind the 1024 of 0, and 65536 // 3072 = 21 rest 1024."""
    coded = encode(np.array([0, 1, 1, 1]), 1)
    state = 65536
    for symbol in (1, 1, 1, 0):
        frequency, before = (3072, 1024) if symbol else (1024, 0)
        state = (state // frequency << 12) + state % frequency + before
    expected = bytes([0b11]) + (1023 | 3071 << 12).to_bytes(3, "little") + (1).to_bytes(2, "little")
    assert coded.tobytes() == expected + (0).to_bytes(4, "little") + state.to_bytes(4, "little")


@settings(max_examples=80)
@given(bits=st.integers(1, 8), n=st.sampled_from([1, 2, 7, 511, 512, 1500, 3000]), seed=st.integers(0, 10**6))
def test_round_trip(bits: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(rng.integers(1, 2**bits, endpoint=True), rng.choice([0.05, 1, 10])))
    values = rng.choice(len(share), size=n, p=share)
    coded = encode(values, bits)
    again, used = decode(np.concatenate([coded, np.zeros(3, dtype=np.uint8)]), bits, n)
    assert again.tolist() == values.tolist()
    assert used == len(coded)
    assert abs(coded_bytes(values, bits) - len(coded)) <= 6 + 2 * max(1, n // 512)


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_it_comes_near_the_floor(bits: int) -> None:
    values = normal(40_000, bits)
    assert len(encode(values, bits)) <= 1.04 * floor_bytes(values)


def test_one_symbol_alone_costs_nothing() -> None:
    values = np.full(100_000, 3)
    assert len(encode(values, 4)) < 900
    assert decode(encode(values, 4), 4, 100_000)[0].tolist() == values.tolist()


@settings(max_examples=200)
@given(data=st.data())
def test_a_damaged_stream_is_found_or_said_to_be_wrong(data: st.DataObject) -> None:
    """It has no checksum of its own (the file has); but it always ends: with numbers, or a ValueError."""
    values = normal(600, 4)
    coded = encode(values, 4).copy()
    for _ in range(data.draw(st.integers(1, 3))):
        coded[data.draw(st.integers(0, len(coded) - 1))] ^= data.draw(st.integers(1, 255))
    coded = coded[: data.draw(st.integers(0, len(coded)))] if data.draw(st.booleans()) else coded
    try:
        again, _ = decode(coded, 4, 600)
    except ValueError:
        return
    assert len(again) == 600


@pytest.mark.parametrize("at", range(10))
def test_a_flipped_bit_in_the_words_is_found(at: int) -> None:
    values = normal(2000, 4)
    coded = encode(values, 4).copy()
    coded[-1 - 20 * at] ^= 4
    try:
        again, _ = decode(coded, 4, 2000)
        assert again.tolist() != values.tolist()
    except ValueError:
        pass
