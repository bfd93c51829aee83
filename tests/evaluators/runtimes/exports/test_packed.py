"""The layout of compressed-tensors' int32 words, by hand and as a property."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from paredown.evaluators.runtimes.exports import pack_words, unpack_words


def test_the_first_code_is_in_the_lowest_bits_of_the_first_word() -> None:
    codes = np.array([[-8, 7, 0, -8, -8, -8, -8, -8, 1]], np.int8)
    assert pack_words(codes, 4).tolist() == [[0x000008F0, 0x9]]


def test_three_bits_go_on_in_the_next_word() -> None:
    codes = np.full((1, 11), -4, np.int8)
    codes[0, 10] = 3  # 7 = 0b111 at bit 30: two bits here, one in the next word
    words = pack_words(codes, 3).astype(np.uint32)
    assert words.tolist() == [[0xC0000000, 1]]


@given(st.integers(2, 8), st.integers(1, 5), st.integers(1, 70), st.integers(0, 2**31))
def test_what_was_packed_comes_back(bits: int, rows: int, columns: int, seed: int) -> None:
    half = 2 ** (bits - 1)
    codes = np.random.default_rng(seed).integers(-half, half, (rows, columns)).astype(np.int8)
    words = pack_words(codes, bits)
    assert words.shape == (rows, -(-columns * bits // 32))
    assert np.array_equal(unpack_words(words, bits, columns), codes)
