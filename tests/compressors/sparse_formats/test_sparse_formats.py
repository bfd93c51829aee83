"""Sparse formats: every format by hand, as a property, and with invalid data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from paredown.compressors.sparse_formats import (
    PRODUCTS,
    SPARSE_FORMATS,
    STRUCTURES,
    ByteSource,
    Pattern,
    crossover,
    decode,
    encode,
    encode_as,
    fastest,
    made,
    measure,
    plans,
    product,
    smallest,
    structure_of,
)

BY_HAND = {
    # name: (rows of the mask, header after the number, streams)
    "bitmap": (["1010", "0110"], [], [([0b01100101], 8)]),
    "coo": (["0001", "0000", "0100"], [2, 0, 0, 0], [([0, 2], 2), ([3, 1], 2)]),
    "csr": (["1001", "0000", "0100"], [2], [([2, 0, 1], 2), ([0, 3, 1], 2)]),
    "csc": (["1001", "0000", "0101"], [2], [([1, 1, 0, 2], 2), ([0, 2, 0, 2], 2)]),
    "ell": (["1001", "0010", "0000"], [2, 0, 0, 0], [([0, 3, 0, 2, 0, 1], 2)]),
    "dia": (["0100", "0010", "1001"], [2, 0, 0, 0], [([0, 3], 3)]),
    "nm": (["10000010", "00010100"], [1, 2], [([0, 2, 3, 1], 2)]),
    "gaps": (["1000", "0000", "0100"], [2, 4, 0, 0, 0], [([0, 3, 3, 0], 2)]),
}


def mask_of(rows: list[str]) -> np.ndarray:
    return np.array([[c == "1" for c in row] for row in rows])


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str) -> None:
    rows, header, streams = BY_HAND[name]
    pattern = Pattern(mask_of(rows))
    wanted = {"gaps": 2, "nm": (1, 2)}.get(name)
    plan = next(p for p in SPARSE_FORMATS[name].plans(pattern) if p.choice == wanted)
    found = encode(pattern, plan)
    assert list(found.header) == [SPARSE_FORMATS[name].number, *header]
    assert [(values.tolist(), bits) for values, bits in found.streams] == streams


def test_blocks_by_hand() -> None:
    """2 x 2 blocks of a 3 x 5 matrix: two of six, their places as a bitmap, and what lies outside left out."""
    pattern = Pattern(mask_of(["11000", "01000", "00001"]))
    plan = next(p for p in SPARSE_FORMATS["bsr"].plans(pattern) if p.choice[:2] == (2, 2))
    found = encode(pattern, plan)
    assert list(found.header[:5]) == [5, 2, 0, 2, 0]
    assert found.slots.tolist() == [0, 1, 5, 6, 14]
    inside = encode(pattern, next(p for p in SPARSE_FORMATS["blockmap"].plans(pattern) if p.choice[:2] == (2, 2)))
    assert list(inside.header) == [10, *found.header[1:]]
    assert [(values.tolist(), bits) for values, bits in inside.streams[1:]] == [([0b11011], 8)]
    assert inside.slots.tolist() == [0, 1, 6, 14]


def check(pattern: Pattern) -> None:
    for plan in plans(pattern):
        found = encode(pattern, plan)
        assert found.n_bytes == plan.index_bytes == len(found.header) + len(found.index), plan
        assert len(found.slots) == plan.n_slots, plan
        assert set(pattern.flat.tolist()) <= set(found.slots.tolist()), plan
        assert all(len(v) == 0 or int(v.max()) < 2**bits for v, bits in found.streams), plan
        source = ByteSource(found.header, found.index)
        name, slots = decode(source, pattern.shape)
        assert (name, slots.tolist()) == (plan.name, found.slots.tolist()), plan
        assert [v.tolist() for v, _ in source.streams] == [v.tolist() for v, _ in found.streams]


masks = arrays.arrays(np.bool_, st.tuples(st.integers(1, 20), st.integers(1, 40)))


@settings(max_examples=60)
@given(masks)
def test_what_is_encoded_is_decoded_in_every_format(mask: np.ndarray) -> None:
    check(Pattern(mask))


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("shape", [(33, 70), (64, 64), (1, 50), (50, 1)])
def test_structured_patterns_too(structure: str, shape: tuple[int, int]) -> None:
    for density in (0.02, 0.2, 0.6):
        check(Pattern(made(structure, shape, density) != 0))


@settings(max_examples=100)
@given(mask=masks, bits=st.sampled_from([2, 4, 8, 32]))
def test_the_rule_takes_the_smallest(mask: np.ndarray, bits: int) -> None:
    pattern = Pattern(mask)
    found = smallest(pattern, bits)
    dense = -(-mask.size * bits // 8)
    ways = [encode(pattern, plan) for plan in plans(pattern)]
    least = min(way.n_bytes + -(-len(way.slots) * bits // 8) for way in ways)
    if found is None:
        assert pattern.n == mask.size or dense <= least
    else:
        assert found.n_bytes + -(-len(found.slots) * bits // 8) == least < dense


@pytest.mark.parametrize(
    ("expected", "mask"),
    [
        ("bitmap", np.random.default_rng(0).random((64, 128)) < 0.5),
        ("gaps", np.random.default_rng(0).random((64, 128)) < 0.1),
        ("bsr", made("blocks", (64, 128), 0.2) != 0),
        ("blockmap", (made("blocks", (64, 128), 0.1) != 0) & (np.random.default_rng(0).random((64, 128)) < 0.4)),
        ("dia", np.eye(64, 128, k=1) + np.eye(64, 128, k=-2) > 0),
        ("nm", (np.arange(64 * 128).reshape(64, 128) * 7 // 4 % 4 == np.arange(128) % 4) & True),
        ("coo", np.arange(64 * 128).reshape(64, 128) % 4001 == 5),
    ],
)
def test_it_looks_at_the_zeros(expected: str, mask: np.ndarray) -> None:
    if expected == "nm":
        rng = np.random.default_rng(1)
        mask = np.zeros((64, 128), dtype=bool)
        groups = mask.reshape(-1, 16)
        groups[np.arange(len(groups)), rng.integers(0, 16, len(groups))] = True
    found = smallest(Pattern(mask), 4)
    assert found is not None
    assert found.name == expected


@settings(max_examples=300)
@given(data=st.data(), shape=st.tuples(st.integers(1, 20), st.integers(1, 40)))
def test_whatever_the_bytes_say_it_is_slots_or_a_value_error(data: st.DataObject, shape: tuple[int, int]) -> None:
    number = data.draw(st.integers(0, 12))
    header = bytes([number]) + data.draw(st.binary(max_size=12))
    index = np.frombuffer(data.draw(st.binary(max_size=80)), dtype=np.uint8)
    try:
        _, slots = decode(ByteSource(header, index), shape)
    except ValueError:
        return
    assert len(set(slots.tolist())) == len(slots)
    assert all(0 <= slot < shape[0] * shape[1] for slot in slots.tolist())


@pytest.mark.parametrize("name", SPARSE_FORMATS)
def test_a_count_that_lies_asks_for_no_memory(name: str) -> None:
    number = SPARSE_FORMATS[name].number
    for rest in (b"\xff" * 12, b"\x20" + b"\xff" * 8, b"\x01\x00\x01\x00\x02\xff\xff\xff\xff"):
        with pytest.raises(ValueError, match=r"."):
            decode(ByteSource(bytes([number]) + rest, np.full(40, 255, dtype=np.uint8)), (30, 30))


def test_a_format_that_cannot_hold_a_pattern_says_so() -> None:
    with pytest.raises(ValueError, match="'nm' cannot hold"):
        encode_as(Pattern(np.ones((4, 8), dtype=bool)), "nm", 4)


class TestProducts:
    @pytest.mark.parametrize("name", PRODUCTS)
    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_as_dense(self, name: str, structure: str) -> None:
        rng = np.random.default_rng(2)
        for shape in ((24, 36), (1, 16), (16, 1), (7, 13)):
            for density in (0.05, 0.5):
                weight = made(structure, shape, density)
                for batch in (None, 1, 3):
                    x = rng.standard_normal((shape[1], batch) if batch else shape[1], dtype=np.float32)
                    found = product(weight, name)(x)
                    assert found.shape == (weight @ x).shape
                    assert found.dtype == np.float32
                    np.testing.assert_allclose(found, weight @ x, rtol=1e-4, atol=1e-5)

    def test_of_nothing_but_zeros(self) -> None:
        for name in PRODUCTS:
            assert product(np.zeros((4, 8), dtype=np.float32), name)(np.ones(8, dtype=np.float32)).tolist() == [0] * 4

    def test_unknown(self) -> None:
        with pytest.raises(ValueError, match="no product in the format 'coo2'; known are dense, bitmap"):
            product(np.zeros((2, 2), dtype=np.float32), "coo2")
        with pytest.raises(ValueError, match="do not divide"):
            product(np.zeros((3, 3), dtype=np.float32), "bsr", block=(2, 2))


class TestFastest:
    @staticmethod
    def document(**speedups: float) -> dict[str, object]:
        rows = [
            {"structure": "random", "rows": 64, "columns": 64, "batch": 1, "density": density, "format": name,
             "ms": 1 / speedup, "dense_ms": 1.0, "speedup": speedup if density < 0.3 else 0.5}
            for name, speedup in speedups.items() for density in (0.05, 0.1, 0.4)
        ]  # fmt: skip
        return {"schema_version": 1, "products": rows}

    def test_the_fastest_of_the_nearest_case(self) -> None:
        document = self.document(csr=2.0, csc=3.0)
        sparse, dense = (made("random", (64, 64), density) for density in (0.06, 0.5))
        assert fastest(sparse, 1, document).format == "csc"
        assert fastest(dense, 1, document).format == "dense"
        assert fastest(sparse, 1, self.document(csr=0.9)).format == "dense"

    def test_the_crossover_by_hand(self) -> None:
        (found,) = crossover(self.document(csr=2.0))
        assert found["density"] == pytest.approx(0.2)  # half way from 0.1 to 0.4 in octaves: 2 times to half
        assert crossover(self.document(csr=0.8))[0]["density"] == 0.0

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_structures_are_told_apart(self, structure: str) -> None:
        assert structure_of(Pattern(made(structure, (128, 256), 0.1) != 0)) == structure

    def test_it_measures(self) -> None:
        document = measure(
            shapes=[(16, 32)], densities=(0.1,), formats=("csr", "ell"), structures=("random",), rounds=2
        )
        assert {(row["format"], row["batch"]) for row in document["products"]} == {
            ("csr", 1), ("csr", 16), ("ell", 1), ("ell", 16)
        }  # fmt: skip
        assert all(row["ms"] > 0 and row["speedup"] > 0 for row in document["products"])
        with pytest.raises(ValueError, match="no structure 'rings'"):
            made("rings", (2, 2), 0.5)


def test_in_a_large_matrix_blocks_are_tried_where_zeros_keep_together() -> None:
    rng = np.random.default_rng(5)
    scattered = Pattern(rng.random((300, 300)) < 0.3)
    clustered = Pattern(made("blocks", (300, 300), 0.1) != 0)
    assert (scattered.is_clustered, clustered.is_clustered) == (False, True)
    assert not {"bsr", "blockmap"} & {plan.name for plan in plans(scattered)}
    blocks = [plan for name in ("bsr", "blockmap") for plan in SPARSE_FORMATS[name].plans(scattered)]
    overlooked = min(plan.n_bytes(4) for plan in blocks)
    assert min(plan.n_bytes(4) for plan in plans(scattered)) <= 1.01 * overlooked
    found = smallest(clustered, 4)
    assert found is not None
    assert found.name == "bsr"
