"""Repairs: exact where they can be checked by hand, nothing where there is nothing to repair, and no trace left."""

import pytest
import torch
from torch import nn

from paredown.compressors import (
    CompressedModel,
    LayerSpec,
    Repairs,
    applicable,
    calibrate,
    compress,
    installed,
    model_digest,
    trace_anatomy,
)  # fmt: skip
from paredown.testing import AWKWARD

THREE = LayerSpec(weight_bits=3)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    """A convolution with a batch norm behind it, a depthwise one with a bias, one with neither, and a linear layer."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first = nn.Conv2d(3, 8, 3, padding=1, stride=2, bias=False)
            self.norm = nn.BatchNorm2d(8)
            self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
            self.bare = nn.Conv2d(8, 6, 1, bias=False)
            self.last = nn.Linear(6, 4)
            nn.init.uniform_(self.norm.running_mean, -0.2, 0.2)
            nn.init.uniform_(self.norm.running_var, 0.5, 2.0)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        return self.last(self.bare(torch.relu(self.depthwise(x))).mean((2, 3)))


def bench(model, batches, spec=THREE):
    anatomy = trace_anatomy(model, batches[0])
    calibration = calibrate(model, batches, anatomy, means=True)
    resident = CompressedModel(model, anatomy, calibration)
    assignment = {x.fqn: spec for x in anatomy.layers if applicable(spec, x) is None}
    variants = {fqn: compress(resident.weight(fqn), spec, anatomy[fqn]) for fqn in assignment}
    return resident, calibration, assignment, variants


def means(model, fqn, batches):
    """Means of the outputs of one module, channel by channel."""
    seen = []
    module = model.get_submodule(fqn)
    handle = module.register_forward_hook(lambda module, args, output: seen.append(output.transpose(0, 1).flatten(1)))
    with torch.no_grad():
        for batch in batches:
            model(batch)
    handle.remove()
    return torch.cat(seen, dim=1).mean(1)


@pytest.mark.parametrize("fqn", ["first", "depthwise", "last"])
def test_a_layer_alone_keeps_the_mean_of_its_outputs(fqn):
    model, batches = Net().eval(), [1.0 + normal(9, 3, 9, 9, seed=i) for i in range(3)]
    resident, calibration, assignment, variants = bench(model, batches)
    repairs = Repairs(resident, calibration.moments, batches)
    assert repairs.without_place == ("bare",)
    behind = {"first": "norm"}.get(fqn, fqn)
    before = means(model, behind, batches)
    one = {fqn: assignment[fqn]}
    values = repairs.corrected_biases(one, variants)
    assert list(values) == [{"first": "norm.running_mean"}.get(fqn, f"{fqn}.bias")]
    with resident.apply(one, variants):
        assert float((means(model, behind, batches) - before).abs().max()) > 1e-3
        with installed(model, values):
            assert means(model, behind, batches) == pytest.approx(before, abs=2e-5)


def test_batch_norms_follow():
    """The normalised channels have again the mean and spread that the original's have on these samples."""
    model, batches = Net().eval(), [1.0 + normal(16, 3, 9, 9, seed=i) for i in range(2)]
    resident, calibration, assignment, variants = bench(model, batches, LayerSpec(weight_bits=2))
    repairs = Repairs(resident, calibration.moments, batches)
    before = means(model, "norm", batches)
    for given in ({}, repairs.corrected_biases(assignment, variants)):
        values = repairs.recalibrated_norms(assignment, variants, given)
        assert set(values) == set(given) | {"norm.running_mean", "norm.running_var"}
        with resident.apply(assignment, variants), installed(model, values):
            assert means(model, "norm", batches) == pytest.approx(before, abs=0.02)


def test_a_later_batch_norm_is_measured_on_inputs_that_are_in_order_again():
    """The first layer's weights doubled: its norm alone has to follow."""
    model = nn.Sequential(
        nn.Conv2d(3, 5, 1, bias=False), nn.BatchNorm2d(5), nn.Conv2d(5, 4, 1, bias=False), nn.BatchNorm2d(4)
    ).eval()
    batches = [normal(8, 3, 5, 5)]
    resident, _, assignment, variants = bench(model, batches, LayerSpec(weight_bits=16, weight_format="fp16"))
    variants["0"].effective.mul_(2.0)
    values = Repairs(resident, None, batches).recalibrated_norms(assignment, variants, {})
    running = 1.0 + (4.0 - 1.0)
    assert values["1.running_var"] == pytest.approx(running * torch.ones(5), rel=1e-3)
    assert values["3.running_var"] == pytest.approx(torch.ones(4), rel=2e-2)


@pytest.mark.parametrize("name", sorted(set(AWKWARD) - {"nothing"}))
def test_awkward_models_are_left_as_they_were_and_what_is_neutral_is_not_touched(name):
    model, inputs = AWKWARD[name]()
    before = model_digest(model)
    resident, calibration, assignment, variants = bench(model, [inputs])
    repairs = Repairs(resident, calibration.moments, [inputs])
    values = repairs.recalibrated_norms(assignment, variants, repairs.corrected_biases(assignment, variants))
    assert set(values) <= set(model.state_dict())
    assert all(bool(torch.isfinite(value).all()) for value in values.values())
    with resident.apply(assignment, variants), installed(model, values):
        pass
    assert model_digest(model) == before
    assert not any(module._forward_pre_hooks for module in model.modules())
    neutral = dict.fromkeys(assignment, LayerSpec())
    assert repairs.recalibrated_norms(neutral, {}, repairs.corrected_biases(neutral, {})) == {}


def test_where_nothing_moved_the_statistics_stay_bit_for_bit():
    model, batches = Net().eval(), [normal(9, 3, 9, 9)]
    resident, _, _, variants = bench(model, batches)
    values = Repairs(resident, None, batches).recalibrated_norms({"last": THREE}, variants, {})
    assert torch.equal(values["norm.running_mean"], model.norm.running_mean)
    assert torch.equal(values["norm.running_var"], model.norm.running_var)


def test_means_travel_in_the_file_of_the_moments(tmp_path):
    model, batches = Net().eval(), [normal(9, 3, 9, 9)]
    anatomy = trace_anatomy(model, batches[0])
    both, alone = (calibrate(model, batches, anatomy, moments=m, means=True).moments for m in (True, False))
    assert alone.get("first") is None
    assert both.get("first") is not None
    stored = both.save(tmp_path)
    for fqn in anatomy.fqns:
        assert torch.equal(stored.mean(fqn), alone.mean(fqn))
    assert set(stored.names) == set(anatomy.fqns)
    assert stored.mean("nowhere") is None
