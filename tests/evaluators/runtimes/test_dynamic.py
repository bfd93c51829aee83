"""Linear layers whose inputs' ranges are found when they run: integers in ONNX Runtime and in PyTorch, code for code
what PyTorch rounds in the search."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from paredown.compressors import CompressedModel, LayerSpec, compress, forward, module_at, trace_anatomy
from paredown.evaluators import lowered_as
from paredown.evaluators.runtimes import OnnxRuntime, OpenVinoRuntime, Runtime, TorchRuntime, has_integer_products
from paredown.hardware_profiles import load_profile
from paredown.testing import AWKWARD, check_runtime

DYNAMIC = LayerSpec(weight_bits=8, activation_bits=8, activation_scheme="dynamic")
ONNX = OnnxRuntime(narrow_from=0, dynamic_from=1)
TORCH = TorchRuntime(dynamic_from=1)


class Rows(nn.Module):
    """A MatMul over three axes, one over four, and a Gemm with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(20, 24, bias=False)
        self.second = nn.Linear(24, 12)
        self.third = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x)).unflatten(1, (1, -1))
        output: Tensor = self.third(functional.relu(self.second(x)).flatten(1, 2).mean(dim=1))
        return output


class Odd(nn.Linear):
    """A linear layer whose weight goes elsewhere first: no one product."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight * 2.0, self.bias)


def compressed(model: nn.Module, x: Any, spec: LayerSpec = DYNAMIC) -> tuple[tuple[Any, ...], Tensor, Tensor]:
    """(arguments of an export, PyTorch's outputs, its outputs with the activations left alone)."""
    anatomy = trace_anatomy(model, x)
    assignment = {layer.fqn: spec if layer.kind == "linear" else LayerSpec() for layer in anatomy.layers}
    variants = {
        fqn: compress(module_at(model, fqn).weight.detach(), s, anatomy[fqn])  # type: ignore[operator]
        for fqn, s in assignment.items()
    }
    resident = CompressedModel(model, anatomy)
    with torch.no_grad():
        with resident.apply(assignment, variants):
            expected = forward(model, x)
        with resident.apply({fqn: s.weight_only for fqn, s in assignment.items()}, variants):
            plain = forward(model, x)
    return (model, assignment, variants, None, x), expected, plain


def rows() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(6, 3, 20) * torch.tensor([0.1, 1.0, 30.0])[None, :, None]
    x[0, 0] = 0.0  # a token without a range
    x[1] = x[1].abs()
    return Rows().eval(), x


def check(output: Tensor, expected: Tensor, plain: Tensor) -> None:
    """Most samples agree to rounding; in few a value that lies between two codes fell on the other side."""
    apart = (output - expected).abs().amax(dim=1)
    assert float(apart.median()) <= 1e-6 * float(expected.abs().max())
    assert float(apart.max()) <= float((plain - expected).abs().max())


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("bits", [8, 5])
@pytest.mark.vnni
def test_onnxruntime_multiplies_integers_and_agrees(bits: int, tmp_path: Path) -> None:
    spec = LayerSpec(weight_bits=bits, activation_bits=8, activation_scheme="dynamic")
    args, expected, plain = compressed(*rows(), spec)
    path = ONNX.export(*args, tmp_path)
    names = operators(path)
    assert names.count("MatMulIntegerToFloat") == names.count("QuantizeLinear") == 3
    assert not {"Gemm", "MatMul"} & set(names)
    output = ONNX.load(path, threads=1).run(args[-1])
    check(output, expected, plain)


@pytest.mark.parametrize("bits", [8, 5])
def test_pytorch_multiplies_integers_and_agrees(bits: int, tmp_path: Path) -> None:
    if not has_integer_products():
        pytest.skip("this processor has no VNNI, or PyTorch no oneDNN")
    spec = LayerSpec(weight_bits=bits, activation_bits=8, activation_scheme="dynamic")
    args, expected, plain = compressed(*rows(), spec)
    session: Any = TORCH.load(TORCH.export(*args, tmp_path), threads=1, model_factory=Rows)
    with torch.profiler.profile() as seen:
        output = session.run(args[-1])
    counts = {event.key: event.count for event in seen.key_averages()}
    assert counts["aten::_int_mm"] == 3
    assert "aten::addmm" not in counts
    check(output, expected, plain)
    check(copy.deepcopy(session.model)(args[-1]).detach(), expected, plain)


def test_what_a_sample_becomes_does_not_hang_on_the_others(tmp_path: Path) -> None:
    args, _, _ = compressed(*rows())
    session = ONNX.load(ONNX.export(*args, tmp_path), threads=1)
    together = session.run(args[-1])
    for i in range(6):
        torch.testing.assert_close(session.run(args[-1][i : i + 1])[0], together[i], rtol=1e-5, atol=1e-5)


@pytest.mark.vnni
def test_narrow_layers_and_what_is_no_one_product_are_rounded_in_fp32(tmp_path: Path) -> None:
    args, expected, plain = compressed(*rows())
    path = OnnxRuntime().export(*args, tmp_path / "narrow")
    assert "MatMulIntegerToFloat" not in operators(path)
    torch.manual_seed(1)
    model, x = nn.Sequential(Odd(16, 24), nn.ReLU(), nn.Linear(24, 8)).eval(), torch.randn(5, 16)
    args, expected, plain = compressed(model, x)
    path = ONNX.export(*args, tmp_path / "odd")
    assert operators(path).count("MatMulIntegerToFloat") == 1
    output = ONNX.load(path, threads=1).run(x)
    check(output, expected, plain)


def test_openvino_rounds_in_fp32(tmp_path: Path) -> None:
    """Its own dynamic quantization is symmetric, in groups of the row; what was evaluated is neither."""
    args, expected, plain = compressed(*rows())
    runtime = OpenVinoRuntime()
    output = runtime.load(runtime.export(*args, tmp_path), threads=1).run(args[-1])
    check(output, expected, plain)


@pytest.mark.parametrize("model", ["mlp", "transformer", "tied_weights", "shared_module", "keyword_inputs"])
@pytest.mark.parametrize("runtime", [ONNX, TORCH], ids=["onnxruntime", "torch"])
@pytest.mark.vnni
def test_the_contract_is_kept_where_every_layer_runs_so(runtime: Runtime, model: str) -> None:
    check_runtime(runtime, (model,))


def test_a_profile_promises_it_to_wide_layers_alone() -> None:
    profile = load_profile("x86-64-onnxruntime")
    model, x = nn.Sequential(nn.Linear(512, 384), nn.Linear(384, 64)).eval(), torch.randn(2, 512)
    wide, narrow = trace_anatomy(model, x).layers
    found = lowered_as(wide, DYNAMIC, profile)
    assert (found.weight_bits, found.activation_bits, found.native) == (8, 8, True)
    assert found.kernel == "MatMulIntegerToFloat"
    for layer, spec in (
        (narrow, DYNAMIC),
        (wide, LayerSpec(activation_bits=8, activation_scheme="dynamic")),
        (wide, LayerSpec(weight_bits=8, activation_bits=6, activation_scheme="dynamic")),
        (wide, LayerSpec(weight_bits=4, group_size=64, activation_bits=8, activation_scheme="dynamic")),
    ):
        found = lowered_as(layer, spec, profile)
        assert (found.weight_bits, found.activation_bits) == (32, 32)
    assert lowered_as(wide, LayerSpec(weight_bits=8, activation_bits=8), profile).kernel == "QGemm"
    conv = trace_anatomy(*AWKWARD["convolutions"]()).layers[0]
    assert lowered_as(conv, DYNAMIC, profile).weight_bits == 32
