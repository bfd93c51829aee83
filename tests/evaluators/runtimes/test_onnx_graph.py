"""Effects of our weights' form on the graph: hand-made cases, each compared with numbers computed beforehand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from paredown.evaluators.runtimes import ExportError, Lowered, OnnxRuntimeSession, fake_quantize, prepare
from paredown.evaluators.runtimes.onnx import build
from paredown.evaluators.runtimes.onnx._layers import _room_for_bias, _scaled_codes


def int8(fqn: str, weight: Tensor, activation: tuple[float, int]) -> Lowered:
    """Plain symmetric quantization per channel; the codes are what the tests look for."""
    column = (-1, *(1,) * (weight.dim() - 1))
    scales = weight.detach().flatten(1).abs().amax(1) / 127.0
    codes = torch.round(weight.detach() / scales.reshape(column)).to(torch.int8)
    return Lowered(fqn=fqn, effective=codes * scales.reshape(column), codes=codes, scales=scales, activation=activation)


def low_rank(fqn: str, weight: Tensor, rank: int) -> Lowered:
    u, s, v = torch.linalg.svd(weight.detach().flatten(1), full_matrices=False)
    u, v = u[:, :rank] * s[:rank], v[:rank]
    return Lowered(fqn=fqn, effective=(u @ v).reshape(weight.shape), factors=(u, v))


def ops(graph: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in graph.graph)


def array(graph: ir.Model, name: str) -> Any:
    value = graph.graph.initializers[name].const_value
    assert value is not None
    return value.numpy()


def run(graph: ir.Model, inputs: Any, folder: Path) -> tuple[Tensor, Counter[str]]:
    """The output in ONNX Runtime, and the operations that it really runs."""
    path, optimized = folder / "model.onnx", folder / "optimized.onnx"
    ir.save(graph, path)
    output = OnnxRuntimeSession(path, 1, optimized).run(inputs)
    return output, ops(ir.load(optimized))


def random_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-1.5, 1.5, channels))
        norm.bias.copy_(torch.linspace(0.3, -0.2, channels))
        norm.running_mean.copy_(torch.linspace(-0.1, 0.4, channels))
        norm.running_var.copy_(torch.linspace(0.5, 2.0, channels))
    return norm


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_batch_norm_is_folded_into_codes_scales_and_bias() -> None:
    conv = nn.Conv2d(2, 3, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[1.27, -0.5], [-2.54, 0.02], [0.127, 0.001]])[..., None, None])
        conv.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    norm = nn.BatchNorm2d(3, eps=0.0)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, -3.0, 0.0]))
        norm.bias.copy_(torch.tensor([0.5, 0.5, 0.5]))
        norm.running_mean.copy_(torch.tensor([1.0, 1.0, 1.0]))  # type: ignore[union-attr]
        norm.running_var.copy_(torch.tensor([4.0, 1.0, 1.0]))  # type: ignore[union-attr]
    model = nn.Sequential(conv, norm).eval()
    graph = build(model, [int8("0", conv.weight, (0.1, 0))], torch.rand(2, 2, 4, 4))
    assert ops(graph) == Counter(QuantizeLinear=1, DequantizeLinear=2, Conv=1)
    # gain = weight / sqrt(var) = (1, -3, 0); the sign goes to the codes, the size to the scale
    assert array(graph, "0.weight_codes")[:, :, 0, 0].tolist() == [[127, -50], [127, -1], [0, 0]]
    np.testing.assert_allclose(array(graph, "0.weight_scales"), [0.01, 0.06, 1.0], rtol=1e-6)
    # bias = norm.bias + gain * (conv.bias - mean)
    np.testing.assert_allclose(array(graph, "0.bias_folded"), [0.5, -2.5, 0.5], rtol=1e-6)


@pytest.mark.vnni
def test_an_integer_convolution_runs_between_two_quantizers(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), random_norm(8), nn.ReLU(), nn.Conv2d(8, 4, 1)
    ).eval()
    layers = [int8("0", model[0].weight, (1 / 255, 0)), int8("3", model[3].weight, (0.01, 0))]  # type: ignore[arg-type]
    x = torch.rand(4, 3, 8, 8)
    output, really = run(build(model, layers, x), x, tmp_path)
    assert really["QLinearConv"] == 1, really  # the last one has no quantizer behind it, and stays in FP32
    expected = prepare(model, layers, fake_quantize)(x)
    assert float((output - expected).abs().max()) < 0.02 * float(expected.abs().max())


@pytest.mark.parametrize("outside", [nn.ZeroPad2d((0, 1, 0, 1)), nn.ConstantPad2d(1, 0.25)])
@pytest.mark.vnni
def test_zeros_around_an_image_do_not_keep_the_layer_before_from_integers(outside: nn.Module, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), outside, nn.Conv2d(8, 4, 3, stride=2), nn.ReLU()).eval()
    layers = [int8("0", model[0].weight, (1 / 255, 0)), int8("3", model[3].weight, (0.01, 0))]  # type: ignore[arg-type]
    x = torch.rand(4, 3, 8, 8)
    output, really = run(build(model, layers, x), x, tmp_path)
    with_zeros = isinstance(outside, nn.ZeroPad2d)
    assert (really["Pad"], really["QLinearConv"]) == ((0, 1) if with_zeros else (1, 0)), really
    expected = prepare(model, layers, fake_quantize)(x)
    assert float((output - expected).abs().max()) < 0.02 * float(expected.abs().max())


@pytest.mark.vnni
def test_linear_layers_run_as_integer_products_whatever_follows(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 5)).eval()
    layers = [int8("0", model[0].weight, (1 / 255, 0)), int8("2", model[2].weight, (2 / 255, 128))]  # type: ignore[arg-type]
    for shape in ((4, 16), (4, 3, 16)):
        x = torch.rand(shape)
        output, really = run(build(model, layers, x), x, tmp_path)
        assert really["MatMulIntegerToFloat"] + really["QGemm"] == 2, really
        assert not really["MatMul"] + really["Gemm"]
        torch.testing.assert_close(output, prepare(model, layers, fake_quantize)(x), atol=1e-2, rtol=0)


def test_an_fp32_weight_between_quantizers_stays_fp32(tmp_path: Path) -> None:
    """ONNX Runtime would quantize it by itself, per tensor; with weights of two sizes that is seen at once."""
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[100.0, 0.0], [0.1, 0.2]])[..., None, None])
        model[0].bias.zero_()
    layers = [
        Lowered(fqn="0", activation=(1 / 255, 0)),
        int8("2", model[2].weight, (0.001, 0)),  # type: ignore[arg-type]
    ]
    x = torch.rand(2, 2, 4, 4)
    x[:, 0] = 0.0  # only the small row of the weight is seen
    output, really = run(build(model, layers, x), x, tmp_path)
    assert not really["QLinearConv"], really
    torch.testing.assert_close(output, prepare(model, layers, fake_quantize)(x), atol=2e-3, rtol=0)


def test_low_rank_becomes_two_layers_with_the_norm_in_the_second(tmp_path: Path) -> None:
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=1)
    model = nn.Sequential(conv, random_norm(6), nn.Flatten(), nn.Linear(96, 8)).eval()
    layers = [low_rank("0", conv.weight, 2), low_rank("3", model[3].weight, 3)]  # type: ignore[arg-type]
    x = torch.randn(3, 4, 8, 8)
    graph = build(model, layers, x)
    assert ops(graph)["Conv"] == 2
    assert ops(graph)["BatchNormalization"] == 0
    assert array(graph, "0.weight_v").shape == (2, 4, 3, 3)
    assert array(graph, "0.weight_u").shape == (6, 2, 1, 1)
    assert array(graph, "3.weight_v").shape == (96, 3)
    output, _ = run(graph, x, tmp_path)
    torch.testing.assert_close(output, prepare(model, layers, fake_quantize)(x), atol=1e-4, rtol=1e-4)


class TwoReaders(nn.Module):
    """Two layers read one tensor; a third reads it with other parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x) * self.c(x)


def test_a_tensor_is_quantized_once_for_the_same_parameters() -> None:
    model = TwoReaders().eval()
    layers = [
        int8("a", model.a.weight, (0.01, 0)),
        int8("b", model.b.weight, (0.01, 0)),
        int8("c", model.c.weight, (0.02, 0)),
    ]
    assert ops(build(model, layers, torch.rand(2, 4)))["QuantizeLinear"] == 2


class Borrows(nn.Module):
    """Uses a layer's weight outside the layer too, where no activation is quantized."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + functional.linear(x, self.layer.weight) + self.layer.weight.sum()


@pytest.mark.parametrize("make", [lambda w: int8("layer", w, (1 / 255, 0)), lambda w: low_rank("layer", w, 2)])
@pytest.mark.vnni
def test_a_weight_that_is_used_elsewhere_too_has_the_same_numbers_there(make: Any, tmp_path: Path) -> None:
    model = Borrows().eval()
    layers = [make(model.layer.weight)]
    x = torch.rand(4, 5)
    output, _ = run(build(model, layers, x), x, tmp_path)
    torch.testing.assert_close(output, prepare(model, layers, fake_quantize)(x), atol=1e-4, rtol=1e-4)


class Standardized(nn.Conv2d):
    """The weight is worked on before it is used: no pattern of ours."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return functional.conv2d(functional.pad(x, (1, 1, 1, 1)), weight, self.bias)


def test_a_weight_that_is_worked_on_is_dequantized_first(tmp_path: Path) -> None:
    model = nn.Sequential(Standardized(3, 4, 3), nn.ReLU()).eval()
    layers = [int8("0", model[0].weight, (1 / 255, 0))]  # type: ignore[arg-type]
    x = torch.rand(4, 3, 6, 6)
    output, _ = run(build(model, layers, x), x, tmp_path)
    torch.testing.assert_close(output, prepare(model, layers, fake_quantize)(x), atol=1e-4, rtol=1e-4)


class Detached(nn.Module):
    """The layer runs, but on a copy of its weight that the graph does not know by name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.hidden = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def test_a_layer_that_is_not_in_the_graph_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Detached().eval()
    layer = int8("layer", model.layer.weight, (0.01, 0))
    monkeypatch.setattr(
        "paredown.evaluators.runtimes.onnx._trace._names_of_weights", lambda _: {"layer": ["renamed.weight"]}
    )
    with pytest.raises(ExportError, match=r"the weight of layer is not in the exported graph.*renamed\.weight"):
        build(model, [layer], torch.rand(2, 3))


def test_the_graph_is_fit_to_be_shown() -> None:
    import onnx

    model = TwoReaders().eval()
    graph = build(model, [int8("a", model.a.weight, (0.01, 0))], torch.rand(2, 4))
    proto = ir.to_proto(graph)
    onnx.checker.check_model(proto, full_check=True)
    assert [value.name for value in proto.graph.input] == ["x"]
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)


@given(
    bias=st.floats(-1e6, 1e6),
    scale=st.floats(1e-12, 1e-2),
    input_scale=st.floats(1e-4, 1.0),
    codes=st.lists(st.integers(-127, 127), min_size=1, max_size=8),
)
def test_a_bias_always_fits_into_int32(bias: float, scale: float, input_scale: float, codes: list[int]) -> None:
    weight = np.array([codes], np.int8)
    found, scales = _room_for_bias(weight, np.array([scale], np.float32), np.array([bias], np.float32), input_scale)
    assert abs(bias) / (input_scale * float(scales[0])) < 2.0**31 - 1
    lost = np.abs(found * scales[0].astype(np.float64) - weight * np.float64(np.float32(scale))).max()
    assert lost <= 0.51 * scales[0] if scales[0] != np.float32(scale) else lost == 0.0


@given(gain=st.floats(-10, 10), codes=st.lists(st.integers(-127, 127), min_size=1, max_size=8))
def test_codes_and_scale_times_a_gain_are_codes_and_a_positive_scale(gain: float, codes: list[int]) -> None:
    weight = np.array([codes], np.int8)
    found, scales = _scaled_codes(weight, np.array([0.25], np.float32), np.array([gain]))
    assert scales[0] > 0
    np.testing.assert_allclose(found * scales[0], weight * 0.25 * gain, rtol=1e-6, atol=127 * 1.2e-38)


def test_a_channel_that_is_switched_off_does_not_overflow(tmp_path: Path) -> None:
    """A gain near zero and a bias of one: in units of the folded scale the bias is far above 2**31."""
    conv, norm = nn.Conv2d(2, 2, 1, bias=False), nn.BatchNorm2d(2)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1e-12, 1.0]))
        norm.bias.copy_(torch.tensor([1.0, 0.5]))
    model = nn.Sequential(conv, norm, nn.ReLU(), nn.Conv2d(2, 2, 1)).eval()
    layers = [int8("0", conv.weight, (1 / 255, 0)), int8("3", model[3].weight, (0.01, 0))]  # type: ignore[arg-type]
    x = torch.rand(2, 2, 3, 3)
    output, really = run(build(model, layers, x), x, tmp_path)
    assert really["QLinearConv"] == 1
    torch.testing.assert_close(output, prepare(model, layers, fake_quantize)(x), atol=0.02, rtol=0)
