"""Forms and methods of low rank, against closed forms, real convolutions, and one another."""

import pytest
import torch
from torch.nn import functional

from paredown.compressors import (
    RANK_FORMS,
    LayerInfo,
    LayerMoments,
    LayerSpec,
    applicable,
    compress,
    decode,
    load_model,
    save_model,
)
from paredown.compressors.lowrank import (
    asvd,
    energy_rank,
    full_rank,
    kept_rank,
    part_macs,
    part_shapes,
    rank_share,
    svd,
)
from paredown.errors import SpecError

FORMS = ("channel", "input", "spatial", "tucker2")
SHAPE = (12, 8, 3, 3)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moments(n, seed=7):
    x = normal(8 * n, n, seed=seed)
    x = x + 0.9 * x.roll(1, dims=1) + 0.5 * x.mean(dim=1, keepdim=True)
    return LayerMoments(second=(x.T @ x / len(x))[None], digest="")


def conv(*shape, **rest):
    return LayerInfo(fqn="layer", kind="conv2d" if len(shape) == 4 else "linear", weight_shape=shape, **rest)


def output_error(one, other, second):
    d = (one - other).reshape(len(one), -1).double()
    return float(((d @ second.double()) * d).sum())


@pytest.mark.parametrize("rank", [1, 4, 10])
def test_asvd_reaches_the_closed_form(rank):
    """min |(W - V) C^1/2| over V of this rank: the singular values of W C^1/2 beyond it (Eckart and Young)."""
    weight, second = normal(10, 24), moments(24).second[0]
    u, v = asvd(weight, rank, second)
    values, vectors = torch.linalg.eigh(second.double())
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    least = float(torch.linalg.svdvals(weight.double() @ root)[rank:].square().sum())
    found = output_error(weight, u @ v, second)
    assert found == pytest.approx(least, rel=1e-4, abs=1e-6)
    plain = svd(weight, rank)
    assert rank == 10 or found < 0.99 * output_error(weight, plain[0] @ plain[1], second)


def test_asvd_of_white_inputs_is_svd_and_of_few_samples_gives_the_weight_back():
    weight = normal(6, 9)
    white = asvd(weight, 3, torch.eye(9) * 2.0)
    plain = svd(weight, 3)
    assert torch.allclose(white[0] @ white[1], plain[0] @ plain[1], atol=1e-5)
    x = normal(2, 9)
    u, v = asvd(weight, 6, x.T @ x)  # two samples: of nine directions seven were never seen
    assert torch.allclose(u @ v, weight, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_whole_rank_gives_the_weight_back_and_half_of_it_is_near(form):
    weight, known = normal(*SHAPE), moments(72)
    from paredown.compressors.lowrank import factorize, product

    for method, second in (("svd", None), ("asvd", known.second[0])):
        parts = factorize(form, weight.reshape(12, -1), SHAPE, 1.0, method, second)
        assert {name: tuple(p.shape) for name, p in parts.items()} == part_shapes(form, 1.0, SHAPE)
        back = product(form, parts, SHAPE).reshape(SHAPE)
        assert float((back - weight).square().sum() / weight.square().sum()) < 1e-4


@pytest.mark.parametrize("form", FORMS)
def test_looking_at_the_inputs_costs_less_of_the_output(form):
    weight, known = normal(*SHAPE), moments(72)
    errors = {}
    for method in ("svd", "asvd"):
        spec = LayerSpec(rank=0.5, rank_form=form, rank_method=method)
        variant = compress(weight, spec, conv(*SHAPE), moments=known)
        assert torch.equal(decode(spec, SHAPE, variant.tensors), variant.effective)
        errors[method] = output_error(weight, variant.effective, known.second[0])
    assert errors["asvd"] < 0.97 * errors["svd"]


def test_tucker2_beats_cutting_both_sides_once():
    """HOOI, against the two truncated decompositions by themselves (HOSVD)."""
    weight = normal(*SHAPE)
    u, _, _ = torch.linalg.svd(weight.reshape(12, -1), full_matrices=False)
    v, _, _ = torch.linalg.svd(weight.transpose(0, 1).reshape(8, -1), full_matrices=False)
    u, v = u[:, :6], v[:, :4]
    once = torch.einsum("oa,pa,piyx,ib,jb->ojyx", u, u, weight, v, v)
    variant = compress(weight, LayerSpec(rank=0.5, rank_form="tucker2"), conv(*SHAPE))
    assert output_error(weight, variant.effective, torch.eye(72)) < output_error(weight, once, torch.eye(72))


def test_spatial_is_a_column_and_a_row():
    weight, x = normal(*SHAPE), normal(2, 8, 9, 7)
    variant = compress(weight, LayerSpec(rank=0.25, rank_form="spatial"), conv(*SHAPE))
    parts = variant.parts()
    between = functional.conv2d(x, parts["v."].reshape(-1, 8, 3, 1), padding=(1, 0))
    output = functional.conv2d(between, parts["u."].reshape(12, -1, 1, 3), padding=(0, 1))
    assert torch.allclose(output, functional.conv2d(x, variant.effective, padding=1), atol=1e-4)


def test_a_separable_kernel_needs_rank_one():
    column, row = normal(3), normal(3)
    weight = (normal(4, 1, seed=1) @ normal(1, 5, seed=2))[:, :, None, None] * torch.outer(column, row)
    spec = LayerSpec(rank=1e-3, rank_form="spatial")
    variant = compress(weight, spec, conv(4, 5, 3, 3))
    assert torch.allclose(variant.effective, weight, atol=1e-5)
    assert variant.n_bytes == 4 * (4 * 3 + 5 * 3)


class TestResidual:
    @pytest.mark.parametrize("way", [{"weight_bits": 2}, {"sparsity": 0.75, "sparsity_method": "refit(wanda)"}])
    @pytest.mark.parametrize("shape", [(16, 24), (12, 8, 3, 3)])
    def test_it_is_nearer_than_the_rest_alone(self, way, shape):
        weight, n = normal(*shape), torch.Size(shape[1:]).numel()
        known = moments(n)
        layer = conv(*shape)
        alone = compress(weight, LayerSpec(**way), layer, moments=known)
        spec = LayerSpec(**way, rank=0.15, rank_form="residual", rank_method="asvd")
        joint = compress(weight, spec, layer, moments=known)
        errors = [output_error(weight, variant.effective, known.second[0]) for variant in (alone, joint)]
        assert errors[1] < 0.95 * errors[0]
        assert set(part_shapes("residual", 0.15, shape)) == {"u.", "v.", "w."}
        assert torch.equal(decode(spec, shape, joint.tensors), joint.effective)
        assert joint.factors() is None
        assert joint.n_bytes < 4 * weight.numel()

    def test_without_bits_or_zeros_it_is_no_level(self):
        reason = applicable(LayerSpec(rank=0.25, rank_form="residual"), conv(16, 16))
        assert reason is not None
        assert "must be sparse or quantized" in reason


@pytest.mark.parametrize(
    ("form", "shape", "reason"),
    [
        ("input", (16, 16), "for convolutions with a kernel"),
        ("tucker2", (16, 16, 1, 1), "for convolutions with a kernel"),
        ("spatial", (16, 16, 1, 5), "two directions, and this one is 1 x 5"),
    ],
)
def test_a_form_that_does_not_fit_says_why(form, shape, reason):
    assert reason in str(applicable(LayerSpec(rank=0.25, rank_form=form), conv(*shape)))


def test_what_saves_neither_bytes_nor_time_is_no_level():
    for form in FORMS:
        assert "saves nothing" in str(applicable(LayerSpec(rank=0.99, rank_form=form), conv(16, 16, 3, 3, macs=2304)))
        assert applicable(LayerSpec(rank=0.2, rank_form=form), conv(16, 16, 3, 3, macs=2304)) is None
    with pytest.raises(SpecError, match="rank_form must be one of"):
        LayerSpec(rank=0.5, rank_form="cp")


def test_macs_are_counted_where_each_part_runs():
    """A stride of two: 1 x 1 before the kernel still sees every position of the input."""
    layer = LayerInfo(
        fqn="layer", kind="conv2d", weight_shape=(16, 8, 3, 3), macs=16 * 72 * 25, input_shape=(8, 10, 10),
        output_shape=(16, 5, 5),
    )  # fmt: skip
    assert part_macs("input", 0.5, layer) == {"u.": 16 * 4 * 9 * 25, "v.": 4 * 8 * 100}
    assert part_macs("tucker2", 0.5, layer) == {"u.": 16 * 8 * 25, "c.": 8 * 4 * 9 * 25, "v.": 4 * 8 * 100}
    assert part_macs("spatial", 0.5, layer) == {"u.": 16 * 12 * 3 * 25, "v.": 12 * 24 * 50}
    assert sum(part_macs("channel", 0.5, layer).values()) == 25 * 8 * (16 + 72)


def test_numbers_and_energies_are_shares():
    for form in FORMS:
        full = full_rank(form, SHAPE)
        for rank in range(1, full + 1):
            assert kept_rank(rank_share(rank, full), (full, full + 5)) == rank
    diagonal = torch.diag(torch.tensor([3.0, 2.0, 1.0]))  # energies 9, 4, 1
    assert [energy_rank(diagonal, e) for e in (0.5, 9 / 14, 0.65, 0.95, 1.0)] == [1, 1, 2, 3, 3]
    assert energy_rank(torch.zeros(3, 3), 0.9) == 1


@pytest.mark.parametrize("form", RANK_FORMS)
@pytest.mark.parametrize("way", [{}, {"weight_bits": 4}, {"sparsity": 0.5}, {"weight_bits": 4, "sparsity": 0.5}])
def test_a_file_gives_every_form_back(tmp_path, form, way):
    model = torch.nn.Sequential(torch.nn.Conv2d(8, 12, 3), torch.nn.Conv2d(12, 4, 1)).eval()
    model[0].weight.data = normal(*SHAPE)
    spec = LayerSpec(**way, rank=0.25, rank_form=form)
    if applicable(spec, conv(*SHAPE)) is not None:
        assert form == "residual"
        assert not way
        return
    variant = compress(model[0].weight, spec, conv(*SHAPE))
    path = tmp_path / "model.safetensors"
    save_model(path, model, {"0": spec}, {"0": variant})
    loaded = torch.nn.Sequential(torch.nn.Conv2d(8, 12, 3), torch.nn.Conv2d(12, 4, 1)).eval()
    load_model(path, loaded)
    assert torch.equal(loaded[0].weight.detach(), variant.effective)
