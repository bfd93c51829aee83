"""Factors of attention's products: found in the traced pass, and rounded where the spec says so."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from paredown.compressors import (
    CompressedModel,
    LayerInfo,
    LayerSpec,
    applicable,
    calibrate,
    load_model,
    save_model,
    stored_bytes,
    trace_anatomy,
)
from paredown.errors import ConfigError, SpecError
from paredown.testing import AWKWARD

PRODUCT = LayerSpec(activation_bits=8, activation_scope="product")
Products = Callable[[Tensor, Tensor, Tensor], Tensor]


class Attention(nn.Module):
    """Queries, keys and values, and products as they are given."""

    def __init__(self, products: Products) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, 6) for _ in range(3))
        self.products = products

    def forward(self, x: Tensor) -> Tensor:
        return self.products(self.q(x), self.k(x), self.v(x))


def scores(q: Tensor, k: Tensor) -> Tensor:
    return torch.softmax(torch.bmm(q, k.transpose(1, 2)) * 0.4, dim=-1)


def made(products: Products) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(Attention(products)).eval(), torch.randn(3, 5, 6)


def found(products: Products) -> list[str]:
    layers = trace_anatomy(*made(products)).layers
    assert {layer.product_in for layer in layers if layer.product} <= {"0"}
    return [layer.product for layer in layers]


ALL = ["factor", "factor", "value"]


@pytest.mark.parametrize(
    ("products", "expected"),
    [
        (functional.scaled_dot_product_attention, ALL),
        (lambda q, k, v: functional.scaled_dot_product_attention(query=q, key=k, value=v, scale=0.3), ALL),
        (lambda q, k, v: scores(q, k) @ v, ALL),
        (lambda q, k, v: torch.matmul(functional.dropout(scores(q, k), 0.1, training=False), v), ALL),
        # a mask, or an order in time, is inside PyTorch's operator
        (lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True), ["", "", ""]),
        (lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, torch.zeros(5, 5)), ["", "", ""]),
        # the values are read by something else, the keys are no layer's output any more
        (lambda q, k, v: scores(q, k) @ v + v, ["factor", "factor", ""]),
        (lambda q, k, v: scores(q, k * 2.0) @ v, ["", "", "value"]),
        # the scores are, or there are two of them
        (lambda q, k, v: (p := scores(q, k)) @ v + p.sum(), ["factor", "factor", ""]),
        (lambda q, k, v: scores(q, k) @ v + torch.softmax(q, -1).mean(), ["", "factor", ""]),
    ],
)
def test_what_is_a_factor(products: Products, expected: list[str]) -> None:
    assert found(products) == expected


def test_attention_of_pytorch_s_own_module_is_left_alone() -> None:
    for name in ("multihead", "encoder", "mlp", "residual"):
        assert not any(layer.product for layer in trace_anatomy(*AWKWARD[name]()).layers)


def test_one_layer_may_give_all_three() -> None:
    layers = {x.fqn: (x.product, x.product_in) for x in trace_anatomy(*AWKWARD["written_out"]()).layers}
    assert layers["blocks.0.qkv"] == ("value", "blocks.0")
    assert layers["blocks.1.qkv"] == ("value", "blocks.1")
    assert layers["blocks.0.out"] == layers["head"] == ("", "")


def rounded(x: Tensor, scale: float, low: int, high: int) -> Tensor:
    return (x / scale).round().clamp(low, high) * scale


@pytest.mark.parametrize("products", [functional.scaled_dot_product_attention, lambda q, k, v: scores(q, k) @ v])
def test_factors_and_scores_are_rounded_by_hand(products: Products) -> None:
    model, x = made(products)
    anatomy = trace_anatomy(model, x)
    calibration = calibrate(model, [x], anatomy, products=True)
    scale = 6**-0.5 if products is functional.scaled_dot_product_attention else 0.4
    with torch.no_grad():
        plain = model(x)
        inputs = rounded(x, (step := calibration.qparams("0.q", PRODUCT))[0], -step[1], 255 - step[1])
        q, k, v = (module(inputs) for module in (model[0].q, model[0].k, model[0].v))
        exact = [module(x) for module in (model[0].q, model[0].k, model[0].v)]
        q, k, v = (
            rounded(y, float(wide.abs().max()) / 127, -128, 127) for y, wide in zip((q, k, v), exact, strict=True)
        )
        wide = (exact[0] @ exact[1].transpose(1, 2) * scale).softmax(-1)
        p = rounded((q @ k.transpose(1, 2) * scale).softmax(-1), float(wide.max()) / 255, 0, 255)
        with CompressedModel(model, anatomy, calibration).apply(dict.fromkeys(anatomy.fqns, PRODUCT), {}):
            output = model(x)
        torch.testing.assert_close(output, p @ v, atol=1e-5, rtol=0)
        assert float((output - plain).abs().max()) > 1e-3
        assert torch.equal(model(x), plain)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_forward_that_fails_leaves_nothing_behind() -> None:
    model, x = made(functional.scaled_dot_product_attention)
    anatomy = trace_anatomy(model, x)
    calibration = calibrate(model, [x], anatomy, products=True)
    with torch.no_grad():
        plain = model(x)
        with CompressedModel(model, anatomy, calibration).apply({"0.v": PRODUCT}, {}):
            with pytest.raises(RuntimeError, match="shapes"):
                model(x[..., :5])
            twin = copy.deepcopy(model)
            assert torch.equal(twin(x), model(x))
            rough = functional.scaled_dot_product_attention(x, x, x)  # outside of the module: untouched
        assert torch.equal(functional.scaled_dot_product_attention(x, x, x), rough)
        assert torch.equal(model(x), plain)


def test_where_it_says_nothing_it_is_refused() -> None:
    model, x = made(functional.scaled_dot_product_attention)
    anatomy = trace_anatomy(model, x)
    assert applicable(PRODUCT, anatomy["0.v"]) is None
    plain = LayerInfo(fqn="out", kind="linear", weight_shape=(6, 6))
    assert "no product of attention" in str(applicable(PRODUCT, plain))
    assert "8 bits, not 4" in str(applicable(LayerSpec(activation_bits=4, activation_scope="product"), anatomy["0.v"]))
    with pytest.raises(SpecError, match="'product' rounds tensors by ranges that were calibrated"):
        LayerSpec(activation_bits=8, activation_scheme="dynamic", activation_scope="product")
    resident = CompressedModel(model, anatomy, calibrate(model, [x], anatomy))
    with pytest.raises(ConfigError, match=r"0\.v is to be a8p.*products=True"), resident.apply({"0.v": PRODUCT}, {}):
        pass


@pytest.mark.parametrize("name", ["transformer", "written_out"])
def test_a_file_says_where_the_scores_are_rounded(name: str, tmp_path: Path) -> None:
    model, inputs = AWKWARD[name]()
    anatomy = trace_anatomy(model, inputs)
    calibration = calibrate(model, [inputs], anatomy, products=True)
    again = type(calibration).from_dict(calibration.to_dict())
    assert again.products == calibration.products
    assert again.digest == calibration.digest
    assignment = {layer.fqn: PRODUCT for layer in anatomy.layers if layer.product}
    path = tmp_path / "model.safetensors"
    length = save_model(path, model, assignment, {}, calibration)
    assert length == stored_bytes(model, anatomy, assignment, {}) == path.stat().st_size
    loaded, _ = AWKWARD[name]()
    specs = load_model(path, loaded)
    assert {fqn: spec for fqn, spec in specs.items() if not spec.is_neutral} == assignment
    with torch.no_grad(), CompressedModel(model, anatomy, calibration).apply(assignment, {}):
        torch.testing.assert_close(loaded(inputs), model(inputs), atol=0, rtol=0)
