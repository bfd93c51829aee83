"""Weights inside LSTM, GRU and nn.MultiheadAttention: layers by their parameter's name, weights only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

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
    fixed_bytes,
    forward,
    layer_bytes,
    load_model,
    preserved,
    save_model,
    trace_anatomy,
    weight_at,
)
from paredown.compressors.anatomy import kind_at
from paredown.compressors.storage import Layout
from paredown.compressors.values import is_inner, weight_name
from paredown.errors import InputError, SpecError
from paredown.testing import AWKWARD

NAMES = ("recurrent", "multihead", "encoder", "cross_attention")
MIXED = (
    LayerSpec(weight_bits=4),
    LayerSpec(weight_bits=3, weight_format="int_asym", group_size=8),
    LayerSpec(weight_bits=4, sparsity=0.5),
    LayerSpec(weight_bits=3, weight_format="palette"),
    LayerSpec(sparsity=0.5),
    LayerSpec(weight_bits=16, weight_format="fp16"),
)


def mixed(model, anatomy):
    assignment = {
        layer.fqn: next(s for s in (MIXED[i % len(MIXED)], MIXED[0]) if applicable(s, layer) is None)
        for i, layer in enumerate(anatomy.layers)
    }
    return assignment, {fqn: compress(weight_at(model, fqn), spec, anatomy[fqn]) for fqn, spec in assignment.items()}


def test_each_weight_of_each_layer_and_direction_is_a_layer():
    model = nn.LSTM(5, 6, num_layers=2, bidirectional=True, batch_first=True)
    anatomy = trace_anatomy(model, torch.randn(3, 7, 5))
    ends = ("", "_reverse")
    assert set(anatomy.fqns) == {f"weight_{w}_l{n}{end}" for w in ("ih", "hh") for n in (0, 1) for end in ends}
    assert {layer.kind for layer in anatomy.layers} == {"lstm"}
    assert anatomy["weight_ih_l1_reverse"].weight_shape == (24, 12)
    assert anatomy["weight_ih_l0"].macs == 7 * 24 * 5
    assert anatomy["weight_hh_l1"].macs == 7 * 24 * 6
    assert anatomy.unused == ()


@pytest.mark.parametrize("batch_first", [False, True])
def test_multiply_accumulates_do_not_depend_on_which_axis_is_time(batch_first):
    gru, x = nn.GRU(5, 6, batch_first=batch_first), torch.randn(3, 7, 5)

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = gru

        def forward(self, x):
            return self.gru(x if batch_first else x.transpose(0, 1))[1][0]

    layer = trace_anatomy(Last(), x)["gru.weight_ih_l0"]
    assert (layer.kind, layer.macs) == ("gru", 7 * 18 * 5)
    assert (layer.input_shape, layer.output_shape) == ((7, 5), (7, 18))


def test_a_packed_sequence_counts_its_steps_alone():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(5, 6, batch_first=True)

        def forward(self, x):
            packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([7, 2]), batch_first=True)
            return self.gru(packed)[1][0]

    assert trace_anatomy(Packed(), torch.randn(2, 7, 5))["gru.weight_hh_l0"].macs == -(-9 * 18 * 6 // 2)


def test_attention_by_hand():
    model, inputs = AWKWARD["cross_attention"]()
    anatomy = trace_anatomy(model, inputs)
    attention = {layer.fqn: layer.macs for layer in anatomy.layers if layer.kind == "attention"}
    assert attention == {
        "attention.q_proj_weight": 5 * 8 * 8,
        "attention.k_proj_weight": 7 * 8 * 6,
        "attention.v_proj_weight": 7 * 8 * 10,
        "attention.out_proj": 5 * 8 * 8,
    }
    model, inputs = AWKWARD["multihead"]()
    anatomy = trace_anatomy(model, inputs)
    assert anatomy["attention.in_proj_weight"].macs == 7 * 48 * 16
    assert anatomy["attention.in_proj_weight"].has_bias


def test_an_out_proj_of_another_kind_of_attention_is_an_ordinary_layer():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.out_proj = nn.Linear(4, 4)

        def forward(self, x):
            return self.out_proj(x)

    assert trace_anatomy(Own(), torch.randn(2, 4))["out_proj"].kind == "linear"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_searched_is_what_is_loaded_and_what_is_counted(name: str, tmp_path: Path):
    model, inputs = AWKWARD[name]()
    anatomy = trace_anatomy(model, inputs)
    assignment, variants = mixed(model, anatomy)
    path = tmp_path / "model.safetensors"
    n_bytes = save_model(path, model, assignment, variants)
    shares = sum(layer_bytes(layer, assignment[layer.fqn], variants[layer.fqn]) for layer in anatomy.layers)
    assert n_bytes == path.stat().st_size == fixed_bytes(model, anatomy) + shares
    fresh, _ = AWKWARD[name]()
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.add_(1.0)
    assert load_model(path, fresh) == assignment
    with CompressedModel(model, anatomy).apply(assignment, variants), preserved(model), preserved(fresh):
        assert torch.equal(forward(fresh, inputs), forward(model, inputs))


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_alone_changes_the_outputs(name: str):
    """Also where PyTorch's fused encoder reads the weights without calling the modules that hold them."""
    model, inputs = AWKWARD[name]()
    anatomy = trace_anatomy(model, inputs)
    resident = CompressedModel(model, anatomy)
    with preserved(model):
        before = forward(model, inputs)
        for layer in anatomy.layers:
            spec = LayerSpec(weight_bits=2)
            with resident.apply({layer.fqn: spec}, {layer.fqn: compress(weight_at(model, layer.fqn), spec, layer)}):
                assert not torch.equal(forward(model, inputs), before), layer.fqn
        assert torch.equal(forward(model, inputs), before)


def test_the_fused_encoder_stands_aside_for_quantized_inputs():
    model, inputs = AWKWARD["encoder"]()
    anatomy = trace_anatomy(model, inputs)
    resident = CompressedModel(model, anatomy, calibrate(model, [inputs], anatomy, bits=(4,)))
    fqn = "blocks.layers.0.linear1"
    with preserved(model):
        before = forward(model, inputs)
        with resident.apply({fqn: LayerSpec(activation_bits=4)}, {}):
            inside = forward(model, inputs)
    assert float((inside - before).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (LayerSpec(activation_bits=8), "activation_bits must be 32"),
        (LayerSpec(weight_bits=8, activation_bits=8), "activation_bits must be 32"),
        (LayerSpec(rank=0.5), "low rank"),
    ],
)
@pytest.mark.parametrize("name", ["recurrent", "multihead", "cross_attention"])
def test_what_has_no_place_inside_is_refused_by_layer_and_field(name, spec, said):
    model, inputs = AWKWARD[name]()
    for layer in trace_anatomy(model, inputs).layers:
        if not layer.is_fused:
            continue
        reason = applicable(spec, layer)
        assert reason is not None
        assert said in reason
        if spec.weight_only.changes_weight and not (spec.changes_activation and applicable(spec.weight_only, layer)):
            plain = replace(spec, activation_bits=32)
            if applicable(plain, layer) is not None:
                with pytest.raises(SpecError, match=layer.fqn):
                    compress(weight_at(model, layer.fqn), plain, layer)


class Products(nn.Module):
    """An LSTM in both directions over an attention whose queries, keys and values are three tensors."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.lstm = nn.LSTM(8, 6, batch_first=True, bidirectional=True)

    def forward(self, query, key, value):
        return self.lstm(self.attention(query, key, value=value, need_weights=False)[0])[0]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_moments_of_what_enters_are_those_of_the_inputs_themselves():
    model = Products().eval()
    inputs = tuple(normal(3, 5, 8, seed=seed) * (1 + seed) for seed in range(3))
    anatomy = trace_anatomy(model, inputs)
    moments = calibrate(model, [inputs, inputs], anatomy, moments=True).moments
    assert set(moments.names) == {layer.fqn for layer in anatomy.layers if layer.is_fused}
    x = torch.cat(inputs).reshape(-1, 8)
    assert torch.allclose(moments.get("attention.in_proj_weight").second[0], x.T @ x / len(x), rtol=1e-4, atol=1e-5)
    assert torch.allclose(moments.mean("attention.in_proj_weight")[0], x.mean(0), atol=1e-5)
    with preserved(model):
        x = model.attention(*inputs)[0].reshape(-1, 8)
    for end in ("", "_reverse"):
        assert torch.allclose(moments.get(f"lstm.weight_ih_l0{end}").second[0], x.T @ x / len(x), rtol=1e-4, atol=1e-6)


def test_a_packed_sequence_counts_its_steps_alone_in_the_moments():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(5, 6, batch_first=True)

        def forward(self, x):
            return self.gru(nn.utils.rnn.pack_padded_sequence(x, torch.tensor([4, 2]), batch_first=True))[1][0]

    model, x = Packed().eval(), normal(2, 4, 5)
    moments = calibrate(model, [x], trace_anatomy(model, x), moments=True).moments
    seen = torch.cat([x[0], x[1, :2]])
    assert torch.allclose(moments.get("gru.weight_ih_l0").second[0], seen.T @ seen / 6, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "spec",
    [
        *(LayerSpec(weight_bits=3, weight_method=method) for method in ("gptq", "awq", "descent", "adaround")),
        LayerSpec(weight_bits=3, weight_format="adaptive", weight_method="gptq"),
        *(LayerSpec(sparsity=0.5, sparsity_method=method) for method in ("wanda", "sparsegpt")),
    ],
    ids=LayerSpec.label,
)
@pytest.mark.parametrize("fqn", ["attention.in_proj_weight", "lstm.weight_ih_l0_reverse"])
def test_methods_that_look_at_inputs_lower_the_error_of_what_is_multiplied(spec, fqn):
    """Against the method of the same kind that looks at the weights alone, on inputs that are far from independent."""
    model, sizes = Products().eval(), torch.tensor([4.0, 0.2, 1.0, 0.1, 3.0, 0.5, 0.1, 1.0])
    x = sizes * (normal(40, 5, 8) + normal(40, 5, 1, seed=1))
    anatomy = trace_anatomy(model, (x, x, x))
    model.attention.register_forward_hook(lambda module, args, output: (args[0], None))  # the LSTM sees x too
    moments = calibrate(model, [(x, x, x)], anatomy, moments=True).moments.get(fqn)
    weight, hessian = weight_at(model, fqn).detach(), moments.second[0].double()
    plain = LayerSpec(weight_bits=3) if spec.weight_bits == 3 else LayerSpec(sparsity=0.5)
    assert applicable(spec, anatomy[fqn]) is None
    errors = []
    for each in (plain, spec):
        apart = (compress(weight, each, anatomy[fqn], moments=moments).effective - weight).double()
        errors.append(float(((apart @ hessian) * apart).sum()))
    assert errors[1] < errors[0]


def test_nothing_else_is_calibrated_or_repaired_inside():
    model, inputs = AWKWARD["recurrent"]()
    anatomy = trace_anatomy(model, inputs)
    calibration = calibrate(model, [inputs], anatomy, moments=True)
    assert set(calibration.ranges) == {"head"}
    assert calibration.moments is not None
    assert set(calibration.moments.names) == {"head"} | {layer.fqn for layer in anatomy.layers if layer.is_fused}
    repairs = Repairs(CompressedModel(model, anatomy), calibration.moments, [inputs])
    assert set(repairs.without_place) == {layer.fqn for layer in anatomy.layers if layer.is_fused}


def test_a_tied_projection_is_one_variant_and_paid_for_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = (nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2))
            self.second.in_proj_weight = self.first.in_proj_weight

        def forward(self, x):
            x = self.first(x, x, x, need_weights=False)[0]
            return self.second(x, x, x, need_weights=False)[0]

    anatomy = trace_anatomy(Tied().eval(), torch.randn(2, 3, 8))
    assert ("first.in_proj_weight", "second.in_proj_weight") in anatomy.groups
    layers = [anatomy[f"{name}.in_proj_weight"] for name in ("first", "second")]
    spec = LayerSpec(weight_bits=4)
    variant = compress(Tied().first.in_proj_weight, spec, layers[0])
    assert sorted(layer_bytes(layer, spec, variant) > variant.n_bytes for layer in layers) == [False, True]


def test_a_file_from_before_these_were_layers_still_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model, inputs = AWKWARD["recurrent"]()
    path = tmp_path / "model.safetensors"
    with monkeypatch.context() as patched:
        patched.setattr("paredown.compressors.anatomy._layers.inner_weights", lambda module: {})
        save_model(path, model, {}, {})
    assert not any(is_inner(fqn) for fqn in Layout.of(model, inner=False).layers)
    fresh, _ = AWKWARD["recurrent"]()
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.add_(1.0)
    load_model(path, fresh)
    with preserved(model), preserved(fresh):
        assert torch.equal(forward(fresh, inputs), forward(model, inputs))


def test_names():
    assert weight_name("lstm.weight_ih_l0_reverse") == "lstm.weight_ih_l0_reverse"
    assert weight_name("weight_hh_l11") == "weight_hh_l11"
    assert weight_name("attention.out_proj") == "attention.out_proj.weight"
    assert weight_name("") == "weight"
    assert not is_inner("weight_ih_l0.0")
    model, _ = AWKWARD["recurrent"]()
    assert kind_at(model, "gru.weight_hh_l0") == "gru"
    with pytest.raises(InputError, match="weight_ih_l7"):
        weight_at(model, "lstm.weight_ih_l7")
