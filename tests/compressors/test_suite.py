"""The contract suite accepts what is built in, and rejects every broken double."""

import pytest
import torch

from paredown.compressors import methods
from paredown.compressors.lowrank import svd
from paredown.compressors.quantization import affine, code_range, mse_range
from paredown.compressors.registry import _registry as registry
from paredown.compressors.sparsity import magnitude
from paredown.errors import InputError, SpecError
from paredown.testing._compressors import check_compressor

KINDS = ("weight", "activation", "sparsity", "rank")


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in methods(kind)])
def test_what_is_built_in_keeps_the_contract(kind, name):
    check_compressor(kind, name)


def test_there_is_a_method_of_each_kind():
    assert all(methods(kind) for kind in KINDS)


def writes_to_its_argument(matrix, bits):
    codes, scale = affine(matrix, bits)
    matrix.mul_(2.0)
    return codes, scale


def is_random(matrix, bits):
    codes, scale = affine(matrix, bits)
    return codes, scale * (1 + 1e-6 * torch.rand(1))


def never_clips_nor_fits(matrix, bits):
    codes, scale = affine(matrix, bits)
    return codes, scale * 1.3


def one_scale_for_all(matrix, bits):
    codes, scale = affine(matrix.reshape(1, -1), bits)
    return codes.reshape(matrix.shape), scale


def symmetric_at_all_widths(matrix, bits):
    codes, scale = affine(matrix, bits)
    return torch.where(codes == codes.max(), codes + 1, codes), scale


def in_double(matrix, bits):
    codes, scale = affine(matrix, bits)
    return codes, scale.double()


def unsigned(matrix, bits):
    codes, scale = affine(matrix, bits)
    return (codes.to(torch.int16) + 128).to(torch.uint8), scale


def revives_zeros(matrix, bits):
    codes, scale = affine(matrix, bits)
    return torch.where(codes == 0, torch.ones_like(codes), codes), scale * 1e-6


def no_scale_for_zeros(matrix, bits):
    codes, scale = affine(matrix, bits)
    return codes, torch.where(codes.any(dim=1), scale, 0.0)


def overflows(matrix, bits):
    low, high = code_range(bits)
    scale = matrix.square().amax(dim=1).sqrt() / high  # infinite for 1e20
    scale = torch.where(scale > 0, scale, matrix.abs().amax(dim=1).clamp(min=1e-30) / high)
    return (matrix / scale[:, None]).round().clamp(low, high).to(torch.int8), scale


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (writes_to_its_argument, "leave its arguments alone"),
        (is_random, "global random state"),
        (never_clips_nor_fits, "the error exceeds"),
        (one_scale_for_all, "a scale for each row"),
        (symmetric_at_all_widths, "codes at 2 bits must be in|the error exceeds"),
        (in_double, "the scale must be float32"),
        (unsigned, "codes must be int8"),
        (revives_zeros, "zero must stay zero|the error exceeds"),
        (no_scale_for_zeros, "finite and positive"),
        (overflows, "huge values.* finite and positive"),
    ],
)
def test_broken_weight_methods_are_rejected(broken, complaint):
    with registry.WEIGHT.temporarily("broken", broken), pytest.raises(AssertionError, match=complaint):
        check_compressor("weight", "broken")


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (lambda sample, low, high, bits: (low - 1.0, high), "must keep low <= 0 <= high"),
        (lambda sample, low, high, bits: (float(sample.min()), float(sample.max())), "must keep low <= 0 <= high"),
        (lambda sample, low, high, bits: (0.0, 0.0), "must not clip everything"),
        (
            lambda sample, low, high, bits: mse_range(sample.mul_(0), low, high, bits),
            "alone",
        ),
        (lambda sample, low, high, bits: (low,), r"\(low, high\) is expected"),
    ],
)
def test_broken_activation_methods_are_rejected(broken, complaint):
    with registry.ACTIVATION.temporarily("broken", broken), pytest.raises(AssertionError, match=complaint):
        check_compressor("activation", "broken")


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (lambda matrix, share: ~magnitude(matrix, share), "must be dropped"),
        (lambda matrix, share: matrix.abs() > matrix.abs().quantile(share), "must be dropped"),
        (lambda matrix, share: magnitude(matrix, share).float(), "the mask must be bool"),
        (lambda matrix, share: magnitude(matrix, share).reshape(-1), "the mask must be"),
    ],
)
def test_broken_sparsity_methods_are_rejected(broken, complaint):
    with registry.SPARSITY.temporarily("broken", broken), pytest.raises(AssertionError, match=complaint):
        check_compressor("sparsity", "broken")


def transposed(matrix, rank):
    u, v = svd(matrix, rank)
    return v.T, u.T


def without_values(matrix, rank):
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank].contiguous(), v[:rank].contiguous()


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (transposed, "the factors have shapes"),
        (without_values, "the error exceeds|give the weight back"),
        (lambda matrix, rank: tuple(factor.double() for factor in svd(matrix, rank)), "factors must be float32"),
        (lambda matrix, rank: svd(matrix, 1), "the factors have shapes"),
    ],
)
def test_broken_rank_methods_are_rejected(broken, complaint):
    with registry.RANK.temporarily("broken", broken), pytest.raises(AssertionError, match=complaint):
        check_compressor("rank", "broken")


def test_unknown_kinds_and_names():
    with pytest.raises(InputError, match="known are weight, activation, sparsity, rank"):
        check_compressor("colour", "affine")
    with pytest.raises(SpecError, match="there is no weight method 'mine'"):
        check_compressor("weight", "mine")
