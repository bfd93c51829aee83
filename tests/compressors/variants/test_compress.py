"""Weights under specs: order, exactness, what is stored, what is refused."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.compressors import LayerInfo, LayerSpec, Variant, applicable, compress, decode, methods
from paredown.compressors.lowrank import kept_rank
from paredown.compressors.registry import _registry as registry
from paredown.compressors.sparsity import magnitude, n_zeros
from paredown.errors import SpecError

CONV = LayerInfo(fqn="conv", kind="conv2d", weight_shape=(8, 4, 3, 3))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def info(weight, kind="linear", groups=1):
    return LayerInfo(fqn="layer", kind=kind, weight_shape=tuple(weight.shape), groups=groups)


specs = st.builds(
    LayerSpec,
    weight_bits=st.sampled_from((2, 3, 4, 5, 6, 7, 8, 32)),
    sparsity=st.sampled_from((0.0, 0.2, 0.5, 0.9)),
    rank=st.sampled_from((1.0, 0.5, 0.2)),
)


@settings(deadline=None, max_examples=60)
@given(specs, st.integers(0, 1000))
def test_what_is_stored_is_what_is_computed_with(spec, seed):
    weight = normal(8, 4, 3, 3, seed=seed)
    before = weight.clone()
    variant = compress(weight, spec, CONV)
    assert torch.equal(weight, before)
    assert variant.effective.data_ptr() != weight.data_ptr()
    assert variant.effective.dtype == torch.float32
    assert torch.equal(decode(spec, CONV.weight_shape, variant.tensors), variant.effective)
    assert variant.n_bytes == sum(t.numel() * t.element_size() for t in variant.tensors.values())
    again = compress(weight, spec, CONV)
    assert again.tensors.keys() == variant.tensors.keys()
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in variant.tensors.items())
    error = (weight.double() - variant.effective.double()).square().sum() / weight.double().square().sum()
    assert variant.weight_error == pytest.approx(float(error))


def test_the_neutral_spec_is_an_exact_no_op():
    weight = normal(8, 4, 3, 3)
    weight[0, 0, 0] = torch.tensor([-0.0, 1e-45, 3e38])
    variant = compress(weight, LayerSpec(activation_bits=8), CONV)
    assert torch.equal(variant.effective.view(torch.int32), weight.view(torch.int32))  # bit for bit, signed zeros too
    assert variant.weight_error == 0.0
    assert variant.n_bytes == weight.nbytes
    assert variant.spec == LayerSpec()
    assert (variant.codes(), variant.factors()) == (None, None)
    half = normal(3, 5).half()
    assert torch.equal(compress(half, LayerSpec(), info(half)).effective, half)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_bytes_of_dense_codes(bits):
    variant = compress(normal(16, 30) + 100, LayerSpec(weight_bits=bits), info(normal(16, 30)))  # no zeros
    assert variant.n_bytes == -(-16 * 30 * bits // 8) + 16 * 4


def test_codes_give_the_effective_weight():
    weight = normal(8, 4, 3, 3)
    for spec in (LayerSpec(weight_bits=4), LayerSpec(weight_bits=8, sparsity=0.5)):
        variant = compress(weight, spec, CONV)
        codes, scale = variant.codes()
        assert codes.dtype == torch.int8
        assert torch.equal(codes * scale.view(-1, 1, 1, 1), variant.effective)


def test_sparse_weights_are_stored_in_a_sparse_format_where_that_is_smaller():
    weight = normal(16, 64)
    half = compress(weight, LayerSpec(sparsity=0.5), info(weight))
    assert set(half.tensors) == {"layout", "index", "values"}
    assert half.n_bytes == 1 + 16 * 64 // 8 + 16 * 64 // 2 * 4  # a bitmap
    barely = compress(weight, LayerSpec(sparsity=0.02), info(weight))
    assert "layout" not in barely.tensors  # 1/32 of zeros would be needed
    codes = compress(weight, LayerSpec(sparsity=0.75, weight_bits=8), info(weight))
    assert codes.n_bytes <= 1 + 16 * 64 // 8 + 16 * 64 // 4 + 16 * 4
    dense = compress(weight, LayerSpec(sparsity=0.05, weight_bits=4), info(weight))
    assert set(dense.tensors) == {"codes", "scale"}


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 400), st.integers(0, 100))
def test_exactly_the_share_of_least_magnitude_is_dropped(share, n, seed):
    matrix = normal(1, n, seed=seed)
    mask = magnitude(matrix, share)
    dropped = int((~mask).sum())
    assert dropped == min(n - 1, round(share * n)) == n_zeros(share, n)
    if dropped > 0:
        assert matrix.abs()[~mask].max() <= matrix.abs()[mask].min()


def test_equal_magnitudes_do_not_change_the_count():
    mask = magnitude(torch.tensor([[1.0, -1.0, 1.0, 1.0]]), 0.5)
    assert mask.tolist() == [[False, False, True, True]]


def test_the_scale_is_fitted_to_the_survivors():
    weight = torch.cat([torch.full((1, 8), 0.1), torch.full((1, 8), 0.7)], dim=1)
    variant = compress(weight, LayerSpec(sparsity=0.5, weight_bits=2), info(weight))
    assert torch.allclose(variant.effective, torch.cat([torch.zeros(1, 8), torch.full((1, 8), 0.7)], dim=1))


def test_low_rank_is_the_best_of_its_rank():
    weight = normal(12, 6, 3, 3)
    layer = info(weight, "conv2d")
    variant = compress(weight, LayerSpec(rank=0.25), layer)
    u, v = variant.factors()
    assert (tuple(u.shape), tuple(v.shape)) == ((12, 3), (3, 54))
    values = torch.linalg.svdvals(weight.reshape(12, -1).double())
    expected = float(values[3:].square().sum() / values.square().sum())  # Eckart and Young
    assert variant.weight_error == pytest.approx(expected, rel=1e-5)
    assert torch.allclose((u @ v).reshape(weight.shape), variant.effective, atol=1e-5)
    assert torch.allclose(u.square().sum(dim=0), v.square().sum(dim=1), rtol=1e-4)  # balanced
    assert variant.n_bytes == 4 * (12 * 3 + 3 * 54)
    assert variant.codes() is None


def test_a_weight_of_low_rank_comes_back():
    weight = normal(10, 2) @ normal(2, 20, seed=1)
    variant = compress(weight, LayerSpec(rank=0.2), info(weight))
    assert torch.allclose(variant.effective, weight, atol=1e-5)


def test_all_three_together_in_their_order():
    weight = normal(16, 40)
    spec = LayerSpec(rank=0.25, sparsity=0.5, weight_bits=8)
    variant = compress(weight, spec, info(weight))
    u, v = variant.factors()
    assert (int((u == 0).sum()), int((v == 0).sum())) >= (16 * 4 // 2, 4 * 40 // 2)
    whole_u, whole_v = compress(weight, LayerSpec(rank=0.25), info(weight)).factors()
    for factor, whole in ((u, whole_u), (v, whole_v)):
        kept = magnitude(whole, 0.5)
        assert not factor[~kept].any()
        assert (factor - whole)[kept].abs().max() < 0.02 * whole.abs().max()
    assert all(name.startswith(("u.", "v.")) for name in variant.tensors)


def test_kept_rank():
    assert kept_rank(0.5, (10, 40)) == 5
    assert kept_rank(0.01, (10, 40)) == 1
    assert kept_rank(0.99, (3, 2)) == 2


@pytest.mark.parametrize(
    ("spec", "layer", "reason"),
    [
        (LayerSpec(rank=0.1), replace(CONV, groups=2), "one group; this one has 2"),
        (LayerSpec(rank=0.1), replace(CONV, kind="embedding", weight_shape=(50, 40)), "this is an embedding"),
        (LayerSpec(rank=0.9), CONV, "rank 7 of a 8 x 36 matrix saves nothing"),
        (LayerSpec(sparsity=0.3), replace(CONV, weight_shape=(1, 1, 1, 1)), "of 1 weights is less than one weight"),
        (LayerSpec(activation_bits=8), replace(CONV, kind="embedding", weight_shape=(5, 4)), "whole numbers"),
        (LayerSpec(), CONV, None),
        (LayerSpec(rank=0.25, sparsity=0.5, weight_bits=2, activation_bits=8), CONV, None),
        (LayerSpec(weight_bits=2, sparsity=0.5), replace(CONV, kind="embedding", weight_shape=(5, 4)), None),
    ],
)
def test_what_does_not_apply_says_why(spec, layer, reason):
    found = applicable(spec, layer)
    assert found is None if reason is None else reason in found


def test_a_treatment_that_does_not_apply_is_refused():
    with pytest.raises(SpecError, match=r"r10 does not apply to conv: .*one group"):
        compress(normal(8, 4, 3, 3), LayerSpec(rank=0.1), replace(CONV, groups=2))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("spec", [LayerSpec(), LayerSpec(weight_bits=4), LayerSpec(rank=0.25)])
def test_a_weight_that_is_not_finite_is_refused_by_name(bad, spec):
    weight = normal(8, 4, 3, 3)
    weight[2, 1, 0, 0] = bad
    with pytest.raises(SpecError, match="the weight of conv holds 1 values that are NaN or infinite, of 288"):
        compress(weight, spec, CONV)


def test_a_weight_of_another_shape_is_refused():
    with pytest.raises(SpecError, match=r"the weight of conv should be \(8, 4, 3, 3\), got \(8, 4\)"):
        compress(normal(8, 4), LayerSpec(), CONV)


def test_a_weight_that_is_not_contiguous_or_half_is_the_same_weight():
    weight = normal(8, 16)
    spec = LayerSpec(weight_bits=4, sparsity=0.3)
    plain = compress(weight, spec, info(weight))
    strided = compress(weight.t().contiguous().t(), spec, info(weight))
    assert torch.equal(plain.effective, strided.effective)
    half = compress(weight.half(), LayerSpec(sparsity=0.5), info(weight))
    assert half.effective.dtype == torch.float16
    assert half.n_bytes == 1 + 8 * 16 // 8 + 8 * 16 // 2 * 2  # a bitmap


def test_zeros_stay_zeros():
    weight = torch.zeros(4, 6)
    for spec in (LayerSpec(weight_bits=4), LayerSpec(sparsity=0.5), LayerSpec(rank=0.25)):
        variant = compress(weight, spec, info(weight))
        assert not variant.effective.any()
        assert variant.weight_error == 0.0


def test_unknown_methods_list_the_known():
    weight = normal(8, 16)
    for spec, known in (
        (LayerSpec(weight_bits=4, weight_method="other"), "adaptive"),
        (LayerSpec(sparsity=0.5, sparsity_method="other"), "block_obs"),
        (LayerSpec(rank=0.25, rank_method="other"), "asvd"),
    ):
        with pytest.raises(SpecError, match=rf"there is no \w+ method '\w+'; known are {known}.*register_"):
            compress(weight, spec, info(weight))
    with pytest.raises(SpecError, match="no kind of method 'colour'; known are weight"):
        methods("colour")


def test_a_taken_name_is_an_error():
    with pytest.raises(SpecError, match="there is a weight method 'affine' already"):
        registry.WEIGHT.register("affine", lambda matrix, bits: (matrix, matrix))
    with pytest.raises(SpecError, match="needs a name of letters"):
        registry.RANK.register("not a name", lambda matrix, rank: (matrix, matrix))
    with pytest.raises(SpecError, match="must be a function"):
        registry.SPARSITY.register("nothing", None)
    assert len(set(methods("weight"))) == len(methods("weight"))


def _codes(matrix, bits):
    return torch.ones_like(matrix, dtype=torch.int8), torch.ones(matrix.shape[0])


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (lambda m, b: (m, torch.ones(m.shape[0])), "int8 codes of shape"),
        (lambda m, b: (_codes(m, b)[0], torch.ones(1)), r"float32 scale of shape \(8,\)"),
        (lambda m, b: (_codes(m, b)[0] * 100, torch.ones(m.shape[0])), r"codes in \[-8, 7\]"),
        (lambda m, b: (_codes(m, b)[0], -torch.ones(m.shape[0])), "finite and positive"),
        (lambda m, b: _codes(m, b), "a dropped weight came back"),
    ],
)
def test_a_method_that_breaks_its_protocol_is_named(broken, complaint):
    weight = normal(8, 16)
    with registry.WEIGHT.temporarily("broken", broken), pytest.raises(SpecError, match=f"'broken'.*{complaint}"):
        compress(weight, LayerSpec(weight_bits=4, sparsity=0.5, weight_method="broken"), info(weight))


def test_variants_are_compared_by_identity():
    weight = normal(8, 16)
    one, other = (compress(weight, LayerSpec(), info(weight)) for _ in range(2))
    assert isinstance(one, Variant)
    assert one != other  # a comparison of tensors would be ambiguous
