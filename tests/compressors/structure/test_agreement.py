"""The promise of the package: on every architecture the masked and the removed model agree, alone and with variants."""

from __future__ import annotations

import copy
import json
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from paredown.compressors import CompressedModel, LayerSpec, compress, forward, trace_anatomy
from paredown.compressors.anatomy import compared_tensors
from paredown.compressors.structure import Removal, Structure, find, masked, removal_of, remove
from paredown.testing import AWKWARD, STRUCTURES

_FOUND: dict[str, Structure] = {}


def found(name: str) -> Structure:
    """Once a run: what is found is the same every time (`test_find` says so)."""
    if name not in _FOUND:
        _FOUND[name] = find(*STRUCTURES[name]())
    return _FOUND[name]


def some_units(structure: Structure, seed: int) -> dict[str, list[int]]:
    rng = random.Random(seed)
    return {s.name: rng.sample(range(s.n_units), rng.randint(s.floor, s.n_units)) for s in structure.sets}


@pytest.mark.parametrize("name", sorted(STRUCTURES))
def test_every_architecture_has_what_can_be_removed(name: str) -> None:
    assert found(name).sets


@settings(max_examples=6)
@given(name=st.sampled_from(sorted(STRUCTURES)), seed=st.integers(0, 10**6))
def test_masked_and_removed_agree_whatever_is_cut(name: str, seed: int) -> None:
    model, inputs = STRUCTURES[name]()
    removal = removal_of(model, found(name).sets, some_units(found(name), seed))
    agree(model, inputs, removal)


@pytest.mark.parametrize("name", sorted(STRUCTURES))
def test_half_of_everything_is_gone(name: str) -> None:
    model, inputs = STRUCTURES[name]()
    kept = {s.name: range(0, s.n_units, 2) for s in found(name).sets}
    removal = removal_of(model, found(name).sets, kept)
    small = agree(model, inputs, removal)
    assert n_parameters(small) < 0.75 * n_parameters(model)
    for module in small.modules():  # what PyTorch's modules say of themselves is true
        if isinstance(module, nn.Linear):
            assert (module.out_features, module.in_features) == tuple(module.weight.shape)
        if isinstance(module, nn.Conv2d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels // module.groups)


@pytest.mark.parametrize("name", ["residual", "separable", "grouped_queries"])
def test_a_mask_composes_with_variants(name: str) -> None:
    """effective = variant x mask, and the removed variant is the variant's rows and columns."""
    model, inputs = STRUCTURES[name]()
    anatomy = trace_anatomy(model, inputs)
    spec = LayerSpec(weight_bits=4, sparsity=0.25)
    assignment = dict.fromkeys(anatomy.fqns, spec)
    resident = CompressedModel(model, anatomy)
    variants = {layer.fqn: compress(resident.weight(layer.fqn), spec, layer) for layer in anatomy.layers}
    removal = removal_of(model, found(name).sets, {s.name: range(s.n_units // 2) for s in found(name).sets})
    with resident.apply(assignment, variants):
        with masked(model, removal), torch.no_grad():
            want = forward(model, inputs)
        compressed = copy.deepcopy(model)
    with torch.no_grad():
        got = forward(remove(compressed, removal), inputs)
    torch.testing.assert_close(want, got, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(set(AWKWARD) - {"nothing"}))
def test_awkward_models_agree_or_are_left_alone(name: str) -> None:
    model, inputs = AWKWARD[name]()
    structure = find(model, inputs)
    assert structure.sets or structure.left
    agree(model, inputs, removal_of(model, structure.sets, {s.name: [0] for s in structure.sets}))


def test_a_mask_leaves_nothing_behind() -> None:
    model, _ = STRUCTURES["encoder"]()
    removal = removal_of(model, found("encoder").sets, {s.name: [0, 1] for s in found("encoder").sets})
    before = {name: (value.data_ptr(), value.clone()) for name, value in model.state_dict().items()}
    with pytest.raises(ZeroDivisionError), masked(model, removal):
        raise ZeroDivisionError
    after = model.state_dict()
    assert all(
        after[name].data_ptr() == pointer and torch.equal(after[name], v) for name, (pointer, v) in before.items()
    )
    assert not any(module._forward_hooks or "forward" in vars(module) for module in model.modules())


def agree(model: nn.Module, inputs: object, removal: Removal) -> nn.Module:
    """Both, and what JSON made of the removal; gives the removed model."""
    again = Removal.from_dict(json.loads(json.dumps(removal.to_dict())))
    assert again == removal
    small = remove(model, again)
    with torch.no_grad():
        with masked(model, removal):
            want = compared_tensors(forward(model, inputs))
        got = compared_tensors(forward(small, inputs))
    torch.testing.assert_close(want, got, atol=1e-5, rtol=1e-5)
    return small


def n_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
