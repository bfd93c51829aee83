"""Calibration statistics of a layer that has lost rows and columns."""

from __future__ import annotations

import pytest
import torch

from paredown.compressors import LayerGradients, calibrate, trace_anatomy
from paredown.compressors.structure import find, gradients_left, moments_left, removal_of, remove, shrunk
from paredown.compressors.values import weight_name
from paredown.testing import STRUCTURES


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("separable", "channels:conv"),  # a depthwise convolution has a moment for each of its channels
        ("grouped", "channels:a"),
        ("dense", "channels:b"),  # concatenated
        ("dense", "channels:c"),  # flattened
        ("residual", "channels:conv1"),
    ],
)
def test_moments_are_those_of_the_removed_model_where_nothing_upstream_has_lost_inputs(name: str, cut: str) -> None:
    model, inputs = STRUCTURES[name]()
    anatomy = trace_anatomy(model, inputs)
    found = {coupled.name: coupled for coupled in find(model, inputs).sets}
    kept = {cut: range(0, found[cut].n_units, 2)}
    removal = removal_of(model, found.values(), kept)
    small = remove(model, removal)
    left = shrunk(anatomy, removal)
    whole, want = (calibrate(m, [inputs], a, moments=True).moments for m, a in ((model, anatomy), (small, left)))
    assert whole is not None
    assert want is not None
    seen = 0
    for layer in anatomy.layers:
        axes = removal.tensors.get(weight_name(layer.fqn))
        before, after = whole.get(layer.fqn), want.get(layer.fqn)
        if not axes or before is None or after is None:
            continue
        got = moments_left(before, layer, axes)
        torch.testing.assert_close(got.second, after.second, rtol=1e-4, atol=1e-5)
        assert got.digest == moments_left(before, layer, axes).digest != before.digest
        seen += 1
    assert seen >= 1


def test_gradients_are_cut_as_the_weight_is() -> None:
    model, inputs = STRUCTURES["grouped"]()
    anatomy = trace_anatomy(model, inputs)
    sets = find(model, inputs).sets
    removal = removal_of(model, sets, {coupled.name: range(0, coupled.n_units, 2) for coupled in sets})
    small = remove(model, removal)
    for layer in anatomy.layers:
        weight, smaller = model.get_parameter(f"{layer.fqn}.weight"), small.get_parameter(f"{layer.fqn}.weight")
        both = torch.stack([weight.detach(), weight.detach().square()]).reshape(2, len(weight), -1)
        got = gradients_left(LayerGradients(both=both, digest="x"), layer, removal.tensors[f"{layer.fqn}.weight"])
        torch.testing.assert_close(got.both[0], smaller.detach().reshape(len(smaller), -1), rtol=0, atol=0)
        torch.testing.assert_close(got.both[1], got.both[0].square(), rtol=0, atol=0)
