"""What is left alone is said: hand-counted parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from paredown.compressors import trace_anatomy
from paredown.search import Task
from paredown.search.space import build_space, describe_left_alone, describe_places, describe_products, parameter_places
from paredown.testing import AWKWARD


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(4, 4, batch_first=True)  # 2 * 3 * 4 * 4 weights, 2 * 3 * 4 biases: 120
        self.head = nn.Linear(4, 20)  # 80 weights, 20 biases: a layer's bias is its own affair
        self.scale = nn.Parameter(torch.ones(20))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.rnn(x)[0][:, -1]) * self.scale
        return out


def test_parameters_that_no_layer_holds() -> None:
    model = Recurrent().eval()
    anatomy = trace_anatomy(model, torch.ones(2, 3, 4))
    space = build_space(
        Task.from_dict({"data": {"factory": "a:b"}, "space": {"weight_bits": [4, 32], "leave": ["head"]}}), anatomy
    )
    places = parameter_places(model, anatomy, space, ("head",))
    assert describe_places(places) == [
        "left alone: scale (8% of the parameters): a bare nn.Parameter, which Recurrent uses by itself",  # 20 / 240
        "to be compressed: rnn.weight_ih_l0, rnn.weight_hh_l0 (40% of the parameters)",
        (
            "left alone: rnn.bias_ih_l0, rnn.bias_hh_l0, head.bias (18% of the parameters): only weights are "
            "compressed, and this is no weight matrix"
        ),
        "left alone: head.weight (33% of the parameters): [space] leave names the layer, or one that shares its weight",
    ]


def test_layers_that_were_not_called() -> None:
    model, inputs = AWKWARD["never_runs"]()
    anatomy = trace_anatomy(model, inputs)
    assert anatomy.unused
    lines = describe_left_alone(model, anatomy)
    assert [line for line in lines if "never run" in line and line.endswith(", ".join(anatomy.unused))]


def test_norms_are_not_worth_a_word() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.Linear(64, 64))
    assert describe_left_alone(model, trace_anatomy(model, torch.ones(2, 64))) == []


class Attention(nn.Module):
    def __init__(self, is_causal: bool) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(4, 4) for _ in range(3))
        self.is_causal = is_causal

    def forward(self, x: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x), is_causal=self.is_causal)


def test_where_products_of_attention_are_rounded_is_said_where_that_was_asked_for() -> None:
    """One attention of two is causal, and its layers have the scope "layer"."""
    model = nn.Sequential(Attention(is_causal=False), Attention(is_causal=True), nn.Linear(4, 4)).eval()
    anatomy = trace_anatomy(model, torch.ones(2, 3, 4))
    lines = {}
    for scope in ("layer", "product"):
        space = {"weight_bits": [8], "activation_bits": [8], "activation_scope": [scope]}
        task = Task.from_dict({"data": {"factory": "tiny.py:data"}, "space": space})
        lines[scope] = describe_products(anatomy, build_space(task, anatomy))
    assert lines["layer"] == []
    (line,) = lines["product"]
    assert line.startswith("activation_scope 'product' is for 3 layers, which feed the attention in 0; the others have")
