"""A model that is pointed at variants, and back."""

import pytest
import torch

from paredown.compressors import (
    CompressedModel,
    LayerSpec,
    applicable,
    calibrate,
    compress,
    forward,
    model_digest,
    trace_anatomy,
    weight_at,
)
from paredown.compressors.anatomy import holder_of, same_outputs
from paredown.errors import ConfigError, InputError
from paredown.testing._models import AWKWARD

WITH_LAYERS = [name for name in AWKWARD if name != "nothing"]
SPECS = (LayerSpec(weight_bits=3), LayerSpec(weight_bits=8, activation_bits=8), LayerSpec(sparsity=0.5, rank=0.3))


def resident(name):
    model, inputs = AWKWARD[name]()
    anatomy = trace_anatomy(model, inputs)
    return CompressedModel(model, anatomy, calibrate(model, [inputs], anatomy)), inputs


def assign(compressed, spec):
    """The spec wherever it applies (to the whole group), and the variants."""
    assignment = {}
    for group in compressed.anatomy.groups:
        layers = [compressed.anatomy[fqn] for fqn in group]
        weight_applies = all(applicable(spec.weight_only, layer) is None for layer in layers)
        for layer in layers:
            chosen = spec if weight_applies else LayerSpec(activation_bits=spec.activation_bits)
            assignment[layer.fqn] = chosen if applicable(chosen, layer) is None else chosen.weight_only
    variants = {}
    for group in compressed.anatomy.groups:
        first = group[0]
        variant = compress(compressed.weight(first), assignment[first].weight_only, compressed.anatomy[first])
        variants |= dict.fromkeys(group, variant)
    return assignment, variants


@pytest.mark.parametrize("name", WITH_LAYERS)
@pytest.mark.parametrize("spec", SPECS, ids=LayerSpec.label)
def test_inside_it_is_compressed_and_outside_it_is_as_before(name, spec):
    compressed, inputs = resident(name)
    model = compressed.model
    model.train()
    parameters = {fqn: weight_at(model, fqn) for fqn in compressed.anatomy.fqns}
    pointers = {fqn: parameter.data_ptr() for fqn, parameter in parameters.items()}
    digest, before = model_digest(model), forward(model, inputs)
    assignment, variants = assign(compressed, spec)

    with compressed.apply(assignment, variants) as applied:
        assert applied is model
        assert model.training
        assert torch.is_grad_enabled()
        for fqn, parameter in parameters.items():
            assert weight_at(model, fqn) is parameter
            if assignment[fqn].changes_weight:
                assert parameter.data_ptr() == variants[fqn].effective.data_ptr()  # pointed at, not copied
            n_hooks = len(holder_of(model, fqn)[0]._forward_pre_hooks)
            assert n_hooks == assignment[fqn].changes_activation
        inside = forward(model, inputs)

    if any(not s.is_neutral for s in assignment.values()):
        assert not same_outputs(inside, before)
    assert {fqn: parameter.data_ptr() for fqn, parameter in parameters.items()} == pointers
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert model.training
    if not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules()):  # whose statistics moved on
        assert model_digest(model) == digest
        assert same_outputs(forward(model, inputs), before)


def test_the_neutral_assignment_changes_no_bit():
    compressed, inputs = resident("convolutions")
    before = forward(compressed.model, inputs)
    for assignment in ({}, dict.fromkeys(compressed.anatomy.fqns, LayerSpec())):
        with compressed.apply(assignment, {}):
            assert torch.equal(forward(compressed.model, inputs), before)


def test_the_result_is_that_of_a_model_with_these_weights():
    compressed, inputs = resident("mlp")
    assignment, variants = assign(compressed, LayerSpec(weight_bits=4))
    other, _ = AWKWARD["mlp"]()
    for fqn, variant in variants.items():
        weight_at(other, fqn).data.copy_(variant.effective)
    with compressed.apply(assignment, variants):
        assert torch.equal(forward(compressed.model, inputs), forward(other, inputs))


def test_an_error_inside_undoes_everything():
    compressed, inputs = resident("transformer")
    before = forward(compressed.model, inputs)
    with pytest.raises(ZeroDivisionError), compressed.apply(*assign(compressed, SPECS[1])):
        raise ZeroDivisionError
    assert torch.equal(forward(compressed.model, inputs), before)
    assert not any(module._forward_pre_hooks for module in compressed.model.modules())
    with compressed.apply({}, {}):  # and it can be used again
        pass


def test_one_assignment_at_a_time():
    compressed, _ = resident("mlp")
    with compressed.apply({}, {}), pytest.raises(InputError, match="applied to this model already"):
        compressed.apply({}, {}).__enter__()


def test_tied_layers_change_together_or_are_refused():
    compressed, inputs = resident("tied_weights")
    spec = LayerSpec(weight_bits=4)
    variant = compress(compressed.weight("embed"), spec, compressed.anatomy["embed"])
    both = {"embed": variant, "head": variant}
    with compressed.apply({"embed": spec, "head": spec}, both):
        assert compressed.model.embed.weight is compressed.model.head.weight
        assert torch.equal(compressed.model.head.weight, variant.effective)
    with pytest.raises(ConfigError, match=r"embed and head share one weight .* got 'w4' and 'fp32'"):
        compressed.apply({"embed": spec}, both).__enter__()
    assert torch.isfinite(forward(compressed.model, inputs)).all()


def test_what_does_not_fit_is_named():
    compressed, _ = resident("mlp")
    assignment, variants = assign(compressed, LayerSpec(weight_bits=4))
    with pytest.raises(ConfigError, match=r"names conv1, no layer of this model .* known are 0, 2, 4"):
        compressed.apply({"conv1": LayerSpec()}, {}).__enter__()
    with pytest.raises(ConfigError, match="0 is to become w4, but no variant of it was given"):
        compressed.apply(assignment, {}).__enter__()
    with pytest.raises(ConfigError, match="0 is to become w8, but its variant is w4"):
        compressed.apply({"0": LayerSpec(weight_bits=8)}, variants).__enter__()
    with pytest.raises(ConfigError, match=r"the variant of 0 should be of shape \(16, 8\), got \(16, 16\)"):
        compressed.apply({"0": LayerSpec(weight_bits=4)}, {"0": variants["2"]}).__enter__()
    with pytest.raises(ConfigError, match="no layer 'nonsense'"):
        compressed.weight("nonsense")
    bare = CompressedModel(compressed.model, compressed.anatomy)
    with pytest.raises(ConfigError, match="needs a calibration; none was given"):
        bare.apply({"0": LayerSpec(activation_bits=8)}, {}).__enter__()


def test_the_anatomy_of_another_model_is_refused():
    compressed, _ = resident("mlp")
    for other in ("convolutions", "no_bias", "tied_weights"):
        model, _ = AWKWARD[other]()
        with pytest.raises(ConfigError, match="the anatomy belongs to another model"):
            CompressedModel(model, compressed.anatomy)


def test_a_model_of_another_number_type_keeps_it():
    model, inputs = AWKWARD["mlp"]()
    model.double()
    anatomy = trace_anatomy(model, inputs.double())
    compressed = CompressedModel(model, anatomy)
    assignment, variants = assign(compressed, LayerSpec(weight_bits=4))
    with compressed.apply(assignment, variants):
        assert forward(model, inputs.double()).dtype == torch.float64
    assert model[0].weight.dtype == torch.float64
