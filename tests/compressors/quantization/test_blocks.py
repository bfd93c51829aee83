"""Scales that belong to blocks of rows by columns: by hand, against the groups and tensors that they become, stored."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paredown.compressors import LayerInfo, LayerSpec, applicable, compress, decode, methods
from paredown.compressors.quantization import Grid, WeightProblem, decoded, fit_nearest, from_groups, solve, to_groups
from paredown.compressors.registry import _registry as registry
from paredown.errors import SpecError


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def problem(matrix, **spec):
    spec = LayerSpec(**{"weight_bits": 4, **spec})
    return WeightProblem(matrix=matrix, grid=Grid.of(spec, matrix.shape[1]))


def test_by_hand():
    matrix = torch.tensor([[7.0, 1.0, 70.0], [2.0, -3.0, 10.0], [0.7, 0.1, 0.0]])
    asked = problem(matrix, weight_method="minmax", group_size="2x2")
    assert asked.grid.scale_shape((3, 3)) == (2, 2)
    rows = to_groups(matrix, asked.grid)
    assert rows.tolist() == [[7, 1, 2, -3], [70, 0, 10, 0], [*matrix[2, :2].tolist(), 0, 0], [0, 0, 0, 0]]
    found = registry.WEIGHT["minmax"](asked)
    assert found.params.scale.tolist() == [[1.0, 10.0], [pytest.approx(0.1), 1.0]]
    assert found.codes.tolist() == [[7, 1, 7], [2, -3, 1], [7, 1, 0]]


SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 20))


@given(SHAPES, st.integers(2, 5), st.integers(1, 8), st.integers(0, 99))
def test_a_matrix_comes_back_from_its_blocks(shape, tall, wide, seed):
    matrix = normal(*shape, seed=seed)
    grid = Grid.of(LayerSpec(weight_bits=4, group_size=f"{tall}x{wide}"), shape[1])
    assert torch.equal(from_groups(to_groups(matrix, grid), grid, shape), matrix)


@given(
    SHAPES, st.integers(2, 5), st.integers(1, 8), st.integers(0, 99),
    st.sampled_from([("int", 3), ("int_asym", 4), ("nf4", 4), ("pow2", 4)]),
)  # fmt: skip
def test_each_block_is_quantized_as_if_it_were_alone(shape, tall, wide, seed, stored):
    matrix = normal(*shape, seed=seed)
    how = {"weight_format": stored[0], "weight_bits": stored[1]}
    found = fit_nearest(problem(matrix, group_size=f"{tall}x{wide}", **how))
    values = decoded(found)
    for i in range(0, shape[0], tall):
        for j in range(0, shape[1], wide):
            alone = fit_nearest(problem(matrix[i : i + tall, j : j + wide].contiguous(), group_size="tensor", **how))
            assert torch.allclose(values[i : i + tall, j : j + wide], decoded(alone), atol=1e-6)


@pytest.mark.parametrize("name", [m for m in methods("weight") if registry.WEIGHT.formats(m) is not None])
def test_a_block_of_all_is_the_tensor_and_of_one_row_a_group(name):
    """Every method; one row of a block alone (the others are in other blocks) has the scale of a group."""
    second = normal(1, 60, 24)
    second = second.transpose(1, 2) @ second / 60
    matrix = normal(4, 24)

    def found(matrix, size):
        spec = LayerSpec(weight_bits=4, group_size=size)
        asked = WeightProblem(matrix=matrix, grid=Grid.of(spec, 24), moments=second)
        return decoded(solve(asked, name, lambda coded: 0))

    assert torch.allclose(found(matrix, "4x24"), found(matrix, "tensor"), atol=1e-5)
    assert torch.allclose(found(matrix[:1], "2x8"), found(matrix[:1], 8), atol=1e-5)


def test_what_is_stored_is_what_is_applied_and_counted():
    layer = LayerInfo(fqn="layer", kind="conv2d", weight_shape=(6, 5, 3, 3))
    weight = normal(6, 5, 3, 3)
    for extra in ({}, {"weight_format": "int_asym", "scale_bits": 16}, {"sparsity": 0.6}, {"rank": 0.5}):
        spec = LayerSpec(weight_bits=4, group_size="4x16", **extra)
        found = compress(weight, spec, layer)
        assert torch.equal(decode(spec, (6, 5, 3, 3), found.tensors), found.effective)
        assert found.codes() is None
    plain = compress(weight, LayerSpec(weight_bits=4, group_size="4x16"), layer)
    assert plain.n_bytes == 6 * 45 // 2 + 2 * 3 * 4


def test_what_is_no_block_is_refused():
    for size in ("1x32", "0x8", "32", "ax8", "32x0", "8x", "99999x8", "2x8 "):
        with pytest.raises(SpecError, match="a block such as '32x32'"):
            LayerSpec(weight_bits=4, group_size=size)
    layer = LayerInfo(fqn="layer", kind="linear", weight_shape=(4, 20))
    said = applicable(LayerSpec(weight_bits=4, group_size="32x32"), layer)
    assert said == "a block of 32x32 is no less than the whole (4, 20): that is 'tensor'"
    assert applicable(LayerSpec(weight_bits=4, group_size="32x16"), layer) is None
    assert LayerSpec(weight_bits=4, group_size="32x16").label() == "w4/32x16"
