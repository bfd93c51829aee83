"""The anatomy of what is left, without making it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from paredown.compressors import Anatomy
from paredown.compressors.structure import find, find_experts, removal_of, remove, shrunk
from paredown.testing import STRUCTURES


@pytest.mark.parametrize("name", sorted(set(STRUCTURES) - {"experts"}))
def test_it_is_what_tracing_the_removed_model_gives(name: str) -> None:
    model, inputs = STRUCTURES[name]()
    sets = find(model, inputs).sets
    anatomy = Anatomy.trace(model, inputs)
    for step in (2, 3):
        removal = removal_of(model, sets, {s.name: range(0, s.n_units, step) for s in sets})
        traced = Anatomy.trace(remove(model, removal), inputs)
        worked_out = shrunk(anatomy, removal)
        if name in (
            "encoder",
            "decoder",
        ):  # what runs inside of PyTorch's own attention is no layer until it is replaced
            assert worked_out.layers == tuple(traced[fqn] for fqn in worked_out.fqns)
        else:
            assert dataclasses.replace(worked_out, n_params=traced.n_params) == traced


def test_experts_that_are_gone_are_no_layers() -> None:
    model, inputs = STRUCTURES["experts"]()
    (layer,), _ = find_experts(model, inputs)
    removal = layer.keep([1, 4])
    left = shrunk(Anatomy.trace(model, inputs), removal)
    assert {fqn for fqn in left.fqns if fqn.startswith("experts")} == {
        "experts.1.0", "experts.1.2", "experts.4.0", "experts.4.2",
    }  # fmt: skip
    assert left["router"].weight_shape == (2, 8)
    assert sum(layer.n_weights for layer in left.layers) == sum(
        p.numel() for p in remove(model, removal).parameters() if p.ndim > 1
    )
    torch.testing.assert_close(left["router"].macs, 2 * 8)
