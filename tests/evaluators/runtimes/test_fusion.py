"""Written and really executed graphs: no stray quantizers, and an error that names what cannot be written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from paredown.compressors import (
    CompressedModel,
    LayerSpec,
    applicable,
    calibrate,
    compress,
    module_at,
    trace_anatomy,
)
from paredown.evaluators.runtimes import ExportError, OnnxRuntimeSession, get_runtime
from paredown.evaluators.runtimes.onnx import export_onnx
from paredown.testing import AWKWARD


class _Airy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.airy_ai(x)


def test_an_operation_that_cannot_be_written_is_named_with_its_module(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), _Airy()))
    with pytest.raises(ExportError, match=r"airy_ai\S* in 1\.1 has no form there .* use the runtime 'torch'"):
        export_onnx(model, {}, {}, None, torch.randn(2, 4), tmp_path)


def test_attention_over_three_axes_is_written(tmp_path: Path) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            y = self.project(x)
            output: Tensor = nn.functional.scaled_dot_product_attention(y, x, y)
            return output

    model, x = Attention().eval(), torch.randn(3, 5, 6)
    output = OnnxRuntimeSession(export_onnx(model, {}, {}, None, x, tmp_path), 1).run(x)
    torch.testing.assert_close(output, model(x).detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sliced", [False, True])
@pytest.mark.vnni
def test_a_convolution_before_a_mean_is_integer(sliced: bool, tmp_path: Path) -> None:
    """The positive values after its ReLU are rounded, as its scope says; the mean of these codes is an integer one
    too.
    """

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last, self.norm = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
            self.head = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.norm(self.last(torch.relu(self.first(x)))))
            output: Tensor = self.head((x[:, :, :2] if sliced else x).mean(dim=(2, 3)))
            return output

    torch.manual_seed(0)
    model, inputs = Pooled().eval(), torch.randn(5, 3, 8, 8)
    anatomy = trace_anatomy(model, inputs)
    calibration = calibrate(model, [inputs], anatomy, tensors=True)
    of_layer = LayerSpec(weight_bits=8, activation_bits=8)
    specs = dict.fromkeys(anatomy.fqns, of_layer) | {"last": replace(of_layer, activation_scope="tensor")}
    variants = {fqn: compress(module_at(model, fqn).weight.detach(), s, anatomy[fqn]) for fqn, s in specs.items()}  # type: ignore[operator]
    with CompressedModel(model, anatomy, calibration).apply(specs, variants), torch.no_grad():
        expected = model(inputs)
    session = OnnxRuntimeSession(
        export_onnx(model, specs, variants, calibration, inputs, tmp_path), 1, tmp_path / "o.onnx"
    )
    torch.testing.assert_close(session.run(inputs), expected, atol=1e-3, rtol=1e-3)
    ran = [node.op_type for node in onnx.load(tmp_path / "o.onnx").graph.node]
    assert ran.count("QLinearConv") == 2
    assert ran.count("QLinearGlobalAveragePool") == 1
    assert not {"Conv", "FusedConv", "BatchNormalization", "ReduceMean", "GlobalAveragePool", "Relu"} & set(ran)


@pytest.mark.parametrize("name", ["transformer", "written_out"])
def test_attention_is_integer_where_its_factors_are_rounded(name: str, tmp_path: Path) -> None:
    """In both runtimes: no product of matrices is left in FP32, and the layers give what they give in codes."""
    model, inputs = AWKWARD[name]()
    anatomy = trace_anatomy(model, inputs)
    calibration = calibrate(model, [inputs], anatomy, products=True)
    product = LayerSpec(weight_bits=8, activation_bits=8, activation_scope="product")
    of_layer = LayerSpec(weight_bits=8, activation_bits=8)
    layers = [layer for layer in anatomy.layers if layer.kind == "linear"]
    specs = {layer.fqn: product if applicable(product, layer) is None else of_layer for layer in layers}
    variants = {fqn: compress(module_at(model, fqn).weight.detach(), s, anatomy[fqn]) for fqn, s in specs.items()}  # type: ignore[operator]
    path = export_onnx(model, specs, variants, calibration, inputs, tmp_path)
    OnnxRuntimeSession(path, 1, tmp_path / "o.onnx")
    ran = [node.op_type for node in onnx.load(tmp_path / "o.onnx").graph.node]
    assert not {"MatMul", "FusedMatMul", "Gemm"} & set(ran)
    runtime = get_runtime("openvino")
    session = runtime.load(runtime.export(model, specs, variants, calibration, inputs, tmp_path), threads=1)
    session.run(inputs)
    products = [kernel for kernel in session.kernels() if kernel["type"] == "MatMul"]  # type: ignore[attr-defined]
    assert len(products) == 2 * sum(layer.product == "value" for layer in layers)
    assert {kernel["precision"] for kernel in products} <= {"i8", "u8"}


def test_no_quantizer_stands_between_a_convolution_a_sum_and_its_relu(tmp_path: Path) -> None:
    """The only FP32 consumers in the residual blocks read the last sum; every convolution is integer."""
    model, inputs = AWKWARD["residual"]()
    anatomy = trace_anatomy(model, inputs)
    calibration = calibrate(model, [inputs], anatomy, tensors=True)
    tensor = LayerSpec(weight_bits=8, activation_bits=8, activation_scope="tensor")
    of_layer = LayerSpec(weight_bits=8, activation_bits=8)
    specs = {layer.fqn: tensor if applicable(tensor, layer) is None else of_layer for layer in anatomy.layers}
    variants = {
        fqn: compress(module_at(model, fqn).weight.detach(), spec, anatomy[fqn])  # type: ignore[operator]
        for fqn, spec in specs.items()
    }
    path = export_onnx(model, specs, variants, calibration, inputs, tmp_path)
    graph = onnx.load(path).graph
    made = {name: node for node in graph.node for name in node.output}
    for node in graph.node:  # in what we write: no pair of a quantizer and its inverse follows another
        if node.op_type == "QuantizeLinear" and node.input[0] in made:
            assert made[node.input[0]].op_type not in ("QuantizeLinear", "DequantizeLinear")
    OnnxRuntimeSession(path, 1, tmp_path / "optimized.onnx")
    ran = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert ran.count("QLinearConv") == 6
    assert not {"Conv", "FusedConv", "BatchNormalization"} & set(ran)
    assert ran.count("QLinearAdd") == 1  # the last one's sum is averaged in FP32
    assert ran.count("QuantizeLinear") <= 3
