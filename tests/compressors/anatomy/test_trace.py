"""Layers, shapes and costs of a traced model."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from paredown.compressors import KINDS, forward, model_digest, module_at, preserved, trace_anatomy, weight_at
from paredown.errors import InputError
from paredown.testing._models import AWKWARD

WITH_LAYERS = [name for name in AWKWARD if name != "nothing"]


@pytest.mark.parametrize("name", WITH_LAYERS)
def test_tracing_leaves_no_trace(name):
    model, inputs = AWKWARD[name]()
    model.train()
    next(model.children(), model).eval()  # a mixture of modes, to be kept
    modes = [module.training for module in model.modules()]
    digest, random_state = model_digest(model), torch.random.get_rng_state()

    anatomy = trace_anatomy(model, inputs)

    assert [module.training for module in model.modules()] == modes
    assert model_digest(model) == digest
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert torch.is_grad_enabled()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert {layer.kind for layer in anatomy.layers} <= set(KINDS)
    for layer in anatomy.layers:
        assert tuple(weight_at(model, layer.fqn).shape) == layer.weight_shape
    grouped = [fqn for group in anatomy.groups for fqn in group]
    assert sorted(grouped) == sorted(anatomy.fqns)


def test_counts_of_a_small_network_by_hand():
    model, inputs = AWKWARD["convolutions"]()
    anatomy = trace_anatomy(model, inputs)
    first, second, head = anatomy.layers
    assert (first.fqn, second.fqn, head.fqn) == ("0", "3", "7")
    assert first.macs == 9 * 9 * 8 * 3 * 9  # positions x out x in x kernel
    assert second.macs == 4 * 4 * 12 * 8 * 9  # stride 2, no padding: 9 -> 4
    assert head.macs == 12 * 4
    assert anatomy.macs == first.macs + second.macs + head.macs
    assert (first.input_shape, first.output_shape) == ((3, 9, 9), (8, 9, 9))
    assert (first.has_bias, second.has_bias) == (False, True)
    assert anatomy.n_params == 8 * 27 + 2 * 8 + 12 * 72 + 12 + 12 * 4 + 4


def test_depthwise_and_grouped_convolutions():
    model, inputs = AWKWARD["depthwise"]()
    depthwise = trace_anatomy(model, inputs)["0"]
    assert (depthwise.groups, depthwise.weight_shape) == (6, (6, 1, 3, 3))
    assert depthwise.macs == 5 * 5 * 6 * 9
    model, inputs = AWKWARD["grouped"]()
    grouped = trace_anatomy(model, inputs)["0"]
    assert (grouped.groups, grouped.macs) == (3, 3 * 3 * 9 * 2 * 9)


def test_layers_that_share_a_tensor_are_one_group():
    model, inputs = AWKWARD["tied_weights"]()
    anatomy = trace_anatomy(model, inputs)
    assert anatomy.fqns == ("embed", "mix", "head")
    assert anatomy.groups == (("embed", "head"), ("mix",))
    assert anatomy["embed"].tied_to == ("head",)
    assert anatomy["head"].tied_to == ("embed",)
    assert anatomy["embed"].macs == 0
    assert anatomy.n_params == 12 * 8 + 8 * 8 + 8


def test_weights_that_share_memory_through_two_parameters_are_one_group():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight.data = model[0].weight.data
    assert trace_anatomy(model, torch.zeros(1, 4)).groups == (("0", "1"),)


def test_a_module_under_two_names_is_one_layer_that_runs_thrice():
    model, inputs = AWKWARD["shared_module"]()
    anatomy = trace_anatomy(model, inputs)
    assert anatomy.fqns == ("first", "last")
    assert anatomy["first"].n_calls == 3
    assert anatomy["first"].macs == 3 * 6 * 6


def test_a_layer_that_never_runs_is_set_aside():
    model, inputs = AWKWARD["never_runs"]()
    anatomy = trace_anatomy(model, inputs)
    assert anatomy.fqns == ("used",)
    assert anatomy.unused == ("spare",)


def test_an_unused_holder_of_a_shared_tensor_has_no_say():
    model, inputs = AWKWARD["never_runs"]()
    model.spare = nn.Linear(5, 4)
    model.spare.weight = model.used.weight
    anatomy = trace_anatomy(model, inputs)
    assert anatomy["used"].tied_to == ()
    assert anatomy.groups == (("used",),)


def test_layers_stand_in_the_order_in_which_they_run():
    model, inputs = AWKWARD["out_of_order"]()
    assert trace_anatomy(model, inputs).fqns == ("first", "last")


def test_a_bare_layer_is_a_model():
    model, inputs = AWKWARD["bare_layer"]()
    assert trace_anatomy(model, inputs).fqns == ("",)


def test_a_layer_over_tokens_counts_every_token():
    model, inputs = AWKWARD["transformer"]()
    assert trace_anatomy(model, inputs)["up"].macs == 7 * 16 * 64


def test_a_model_without_layers_is_refused():
    model, inputs = AWKWARD["nothing"]()
    with pytest.raises(InputError, match=r"Scaled has no layer that can be compressed.*Linear, Conv1d, Conv2d"):
        trace_anatomy(model, inputs)


def test_weights_that_are_not_plain_parameters_are_not_candidates():
    normed = parametrizations.weight_norm(nn.Linear(4, 4))
    clipped = nn.Embedding(4, 4, max_norm=1.0)
    with pytest.raises(InputError, match="no layer"):
        trace_anatomy(nn.Sequential(clipped, normed), torch.tensor([1, 2]))


def test_the_model_is_given_back_when_it_raises():
    model, _ = AWKWARD["mlp"]()
    model.train()
    with pytest.raises(RuntimeError, match="shapes"):
        trace_anatomy(model, torch.zeros(2, 5))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


class Answers(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, y=None):
        return self.answer(x if y is None else x + y)


class Output:
    def __init__(self, logits):
        self.logits = logits


@pytest.mark.parametrize("answer", [lambda x: x, Output, lambda x: {"logits": x}, lambda x: (x, None), lambda x: [x]])
def test_forward_finds_the_output(answer):
    one = torch.ones(2)
    assert torch.equal(forward(Answers(answer), one), one)
    assert torch.equal(forward(Answers(answer), (one, one)), 2 * one)
    assert torch.equal(forward(Answers(answer), {"x": one, "y": one}), 2 * one)


@pytest.mark.parametrize("answer", [lambda x: None, lambda x: {"scores": None}, lambda x: (), lambda x: ("no", 3)])
def test_forward_refuses_what_is_no_output(answer):
    with pytest.raises(InputError, match="a model must return a tensor"):
        forward(Answers(answer), torch.ones(2))


def test_forward_refuses_other_inputs():
    with pytest.raises(InputError, match=r"must be a tensor, a tuple .* or a dict .*, got list"):
        forward(Answers(lambda x: x), [torch.ones(2)])


def test_module_at_names_what_is_missing():
    model, _ = AWKWARD["mlp"]()
    assert module_at(model, "2") is model[2]
    assert module_at(model, "") is model
    with pytest.raises(InputError, match="no module '9'"):
        module_at(model, "9")


def test_preserved_gives_back_modes_and_randomness_after_an_error():
    model, _ = AWKWARD["mlp"]()
    model.train()
    before = torch.random.get_rng_state()

    def fails():
        with preserved(model):
            assert not model.training
            assert not torch.is_grad_enabled()
            torch.rand(3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_digest_tells_models_apart():
    model, _ = AWKWARD["mlp"]()
    same, _ = AWKWARD["mlp"]()
    digest = model_digest(model)
    assert model_digest(same) == digest == model_digest(model.state_dict())
    with torch.no_grad():
        same[0].bias[0] += 1e-6
    assert model_digest(same) != digest
