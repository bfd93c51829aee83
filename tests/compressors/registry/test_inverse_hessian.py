import torch

from paredown.compressors.registry import DAMPING, damped, inverse_factor


def moments(n, groups=1):
    x = torch.randn(groups, 4 * n, n, generator=torch.Generator().manual_seed(5))
    return x.transpose(1, 2) @ x / (4 * n)


def test_damping_by_hand():
    # the mean of the diagonal is 2, so a hundredth of it is 0.02; a group of zeros counts as one with mean 1
    second = torch.stack([torch.tensor([[1.0, 0.5], [0.5, 3.0]]), torch.zeros(2, 2)])
    expected = torch.tensor([[[1.02, 0.5], [0.5, 3.02]], [[0.01, 0.0], [0.0, 0.01]]])
    assert torch.allclose(damped(second), expected)


def test_the_factor_is_upper_and_gives_the_inverse_of_the_damped_moments():
    second = moments(6, groups=2)
    factor = inverse_factor(second)
    assert torch.equal(factor, factor.triu())
    product = factor.transpose(1, 2) @ factor @ damped(second, DAMPING)
    assert torch.allclose(product, torch.eye(6).expand(2, 6, 6), atol=1e-4)


def test_moments_that_are_not_positive_definite_get_more_damping():
    indefinite = torch.tensor([[[1.0, 2.0], [2.0, 1.0]]])
    factor = inverse_factor(indefinite)
    assert bool(factor.isfinite().all())
    assert bool((factor.diagonal(dim1=1, dim2=2) > 0).all())
