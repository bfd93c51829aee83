"""The anatomy of what is left, without making it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from paredown.compressors import trace_anatomy
from paredown.compressors.structure import find, find_experts, removal_of, remove, shrunk
from paredown.testing import STRUCTURES


@pytest.mark.parametrize("name", sorted(set(STRUCTURES) - {"experts_dispatched"}))
def test_it_is_what_tracing_the_removed_model_gives(name: str) -> None:
    model, inputs = STRUCTURES[name]()
    sets = find(model, inputs).sets
    anatomy = trace_anatomy(model, inputs)
    for step in (2, 3):
        removal = removal_of(model, sets, {s.name: range(0, s.n_units, step) for s in sets})
        traced = trace_anatomy(remove(model, removal), inputs)
        worked_out = shrunk(anatomy, removal)
        if name in (
            "encoder",
            "decoder",
        ):  # what runs inside of PyTorch's own attention is no layer until it is replaced
            assert worked_out.layers == tuple(traced[fqn] for fqn in worked_out.fqns)
        else:
            assert dataclasses.replace(worked_out, n_params=traced.n_params) == traced


def test_tokens_of_experts_that_are_gone_go_to_the_others() -> None:
    """Each token asks two experts, whatever their number: no MACs are saved, and none are said to be."""
    model, inputs = STRUCTURES["experts_dispatched"]()
    (coupled,) = find(model, inputs).of_kind("experts")
    anatomy = trace_anatomy(model, inputs)
    removal = removal_of(model, [coupled], {coupled.name: (0, 2, 5)})
    worked_out, traced = shrunk(anatomy, removal), trace_anatomy(remove(model, removal), inputs)
    assert worked_out.fqns == traced.fqns
    inside = [fqn for fqn in traced.fqns if fqn.startswith("experts.")]
    assert {fqn.split(".")[1] for fqn in inside} == {"0", "2", "5"}
    for fqn in inside:
        assert worked_out[fqn].weight_shape == traced[fqn].weight_shape
    sums = [sum(a[fqn].macs for fqn in a.fqns if fqn.startswith("experts.")) for a in (anatomy, worked_out, traced)]
    assert sums == pytest.approx([2 * 2 * 8 * 12] * 3, rel=0.02)  # a layer's MACs for each sample are rounded up
    assert worked_out["router"] == traced["router"]


def test_experts_that_are_gone_are_no_layers() -> None:
    model, inputs = STRUCTURES["experts"]()
    (layer,), _ = find_experts(model, inputs)
    removal = layer.keep([1, 4])
    left = shrunk(trace_anatomy(model, inputs), removal)
    assert {fqn for fqn in left.fqns if fqn.startswith("experts")} == {
        "experts.1.0", "experts.1.2", "experts.4.0", "experts.4.2",
    }  # fmt: skip
    assert left["router"].weight_shape == (2, 8)
    assert sum(layer.n_weights for layer in left.layers) == sum(
        p.numel() for p in remove(model, removal).parameters() if p.ndim > 1
    )
    torch.testing.assert_close(left["router"].macs, 2 * 8)
