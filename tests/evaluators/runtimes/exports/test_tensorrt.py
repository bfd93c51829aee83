"""ONNX for TensorRT: the graph is what its documentation asks for, and computes what PyTorch computes."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from paredown.compressors import LayerSpec
from paredown.evaluators.runtimes import ExportError, export_model, get_runtime
from paredown.evaluators.runtimes.exports import NOTES_FILE, check_file, is_two_to_four
from paredown.testing import AWKWARD

INT8 = LayerSpec(weight_bits=8, activation_bits=8, activation_scheme="symmetric")


def exported(case: tuple[tuple[Any, ...], Tensor], out: Path) -> tuple[Tensor, onnx.ModelProto, dict[str, Any]]:
    """(outputs in ONNX Runtime, the graph, the notes)"""
    path = export_model("tensorrt-onnx", *case[0], out)
    output = get_runtime("onnxruntime").load(path, threads=1).run(case[0][-1])
    return output, onnx.load(path), json.loads((out / NOTES_FILE).read_text())


def ops(graph: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in graph.graph.node]


def arrays(graph: onnx.ModelProto) -> dict[str, TensorProto]:
    return {tensor.name: tensor for tensor in graph.graph.initializer}


@pytest.mark.parametrize("name", ["mlp", "convolutions", "transformer"])
def test_int8_agrees_and_every_quantizer_is_signed_with_zero_point_0(
    name: str, compressed: Callable[..., Any], tmp_path: Path
) -> None:
    case = compressed(*AWKWARD[name](), INT8)
    output, graph, notes = exported(case, tmp_path)
    torch.testing.assert_close(output, case[1], atol=1e-5, rtol=1e-5)
    stored = arrays(graph)
    quantizers = [node for node in graph.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert quantizers
    for node in quantizers:
        zero = stored[node.input[2]]
        assert zero.data_type == TensorProto.INT8
        assert not np.any(numpy_helper.to_array(zero))
    assert not notes["fallbacks"]
    made_by = {output: node for node in graph.graph.node for output in node.output}
    products = [node for node in graph.graph.node if node.op_type in ("Conv", "Gemm")]
    for node in products:
        assert made_by[node.input[0]].op_type == made_by[node.input[1]].op_type == "DequantizeLinear"
        assert node.input[2] in stored, "the bias stays in floating point"


def test_int4_blocks_are_stored_as_int4_and_need_opset_21(compressed: Callable[..., Any], tmp_path: Path) -> None:
    case = compressed(*AWKWARD["transformer"](), LayerSpec(weight_bits=4, group_size=8))
    output, graph, notes = exported(case, tmp_path)
    torch.testing.assert_close(output, case[1], atol=1e-5, rtol=1e-5)
    assert notes["opset"] == 21
    assert notes["written_as"]["up"] == "INT4 weight, blocks of 8"
    codes = arrays(graph)["up.weight_codes"]
    assert codes.data_type == TensorProto.INT4
    assert tuple(codes.dims) == (16, 64), "(in, out), as the product reads it"
    (node,) = (node for node in graph.graph.node if "up.weight_codes" in node.input)
    assert {a.name: a.i for a in node.attribute} == {"axis": 0, "block_size": 8}


def test_half_precision_weights_are_cast(compressed: Callable[..., Any], tmp_path: Path) -> None:
    case = compressed(*AWKWARD["convolutions"](), LayerSpec(weight_bits=16, weight_format="fp16"))
    output, graph, _ = exported(case, tmp_path)
    torch.testing.assert_close(output, case[1], atol=1e-5, rtol=1e-5)
    assert arrays(graph)["0.weight_stored"].data_type == TensorProto.FLOAT16
    assert ops(graph).count("Cast") == 3


def test_a_zero_point_becomes_a_symmetric_range_and_that_is_noted(
    compressed: Callable[..., Any], tmp_path: Path
) -> None:
    model, inputs = AWKWARD["mlp"]()
    affine = compressed(model, inputs, dataclasses.replace(INT8, activation_scheme="affine"))
    output, _, notes = exported(affine, tmp_path)
    torch.testing.assert_close(output, compressed(model, inputs, INT8)[1], atol=1e-5, rtol=1e-5)
    assert set(notes["fallbacks"]) == {"0", "2", "4"}
    assert "made symmetric" in notes["fallbacks"]["0"]


def test_what_has_no_form_is_dense_and_noted(compressed: Callable[..., Any], tmp_path: Path) -> None:
    case = compressed(*AWKWARD["mlp"](), LayerSpec(weight_bits=3, weight_format="palette"))
    output, graph, notes = exported(case, tmp_path)
    torch.testing.assert_close(output, case[1], atol=1e-5, rtol=1e-5)
    assert notes["fallbacks"]["0"] == "w3-palette has no form that TensorRT takes: dense FP32 weight"
    assert "DequantizeLinear" not in ops(graph)


def test_a_dynamic_range_is_refused_by_name(compressed: Callable[..., Any], tmp_path: Path) -> None:
    args, _ = compressed(*AWKWARD["mlp"](), dataclasses.replace(INT8, activation_scheme="dynamic"))
    with pytest.raises(ExportError, match=r"^0 is w8 a8-dynamic: TensorRT has no dynamic.*'symmetric'"):
        export_model("tensorrt-onnx", *args, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Residual(nn.Module):
    """A residual over the identity, and one over zeros that are put behind every second value."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.third = nn.Conv2d(4, 6, 3, padding=1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(x) + x)
        return self.third(x) + functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))


def test_residuals_are_rounded_like_the_input_beside_them(compressed: Callable[..., Any], tmp_path: Path) -> None:
    model, inputs = Residual().eval(), torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    case = compressed(model, inputs, INT8)
    output, _, notes = exported(case, tmp_path)
    assert notes["residuals"] == {"quantized": 2, "floating_point": 0}
    _, _, variants, calibration, _ = case[0]

    def rounded(x: Tensor, fqn: str) -> Tensor:
        scale, zero_point = calibration.qparams(fqn, INT8)
        return (x / scale).round().clamp(-zero_point, 255 - zero_point) * scale

    def layer(x: Tensor, fqn: str, **how: Any) -> Tensor:
        return functional.conv2d(x, variants[fqn].effective, getattr(model, fqn).bias, **how)

    with torch.no_grad():
        x = rounded(torch.relu(layer(rounded(inputs, "first"), "first", padding=1)), "second")
        x = rounded(torch.relu(layer(x, "second", padding=1) + x), "third")
        by_hand = layer(x, "third", padding=1, stride=2) + functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))
    torch.testing.assert_close(output, by_hand, atol=1e-5, rtol=1e-5)
    assert float((output - case[1]).abs().max()) > 1e-3, "the residual is rounded where the search left it alone"


def two_to_four_model() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 9, 4, bias=False)).eval()
    with torch.no_grad():
        for layer in (model[0], model[3]):
            assert isinstance(layer.weight, nn.Parameter)
            layer.weight[:, ::4] = 0
            layer.weight[:, 1::4] = 0
    return model


@pytest.mark.parametrize("spec", [INT8, LayerSpec(weight_bits=4), LayerSpec(sparsity=0.5)], ids=lambda s: s.label())
def test_two_to_four_is_kept_and_a_broken_pattern_is_seen(
    spec: LayerSpec, compressed: Callable[..., Any], tmp_path: Path
) -> None:
    torch.manual_seed(3)
    case = compressed(two_to_four_model(), torch.randn(3, 8, 5, 5), spec)
    output, graph, notes = exported(case, tmp_path)
    torch.testing.assert_close(output, case[1], atol=1e-5, rtol=1e-5)
    assert notes["two_to_four"] == ["0", "3"]
    (weight,) = (t for t in graph.graph.initializer if t.name in ("3.weight_codes", "3.weight_stored"))
    dense = np.ones(weight.dims, numpy_helper.to_array(weight).dtype)
    weight.CopyFrom(numpy_helper.from_array(dense, weight.name))
    onnx.save(graph, tmp_path / "broken.onnx")
    with pytest.raises(ExportError, match="3 is 2:4 sparse, and in the file it is not"):
        check_file(tmp_path / "broken.onnx", {"0": 4, "3": 2})


def test_the_pattern_is_along_the_input_channels() -> None:
    weight = torch.ones(2, 8, 3, 3)
    assert not is_two_to_four(weight)
    weight[:, [0, 1, 6, 7]] = 0
    assert is_two_to_four(weight)
    assert not is_two_to_four(weight.transpose(0, 1).contiguous())
    assert not is_two_to_four(torch.zeros(2, 8)), "a layer without weights is no pattern"


def test_a_graph_for_cpus_is_refused(compressed: Callable[..., Any], tmp_path: Path) -> None:
    """The check can fail: ONNX Runtime's own export has uint8 zero points and a bias in int32."""
    args, _ = compressed(*AWKWARD["mlp"](), dataclasses.replace(INT8, activation_scheme="affine"))
    path = export_model("onnx", *args, tmp_path)
    with pytest.raises(ExportError, match=r"not a stored 0|uint8"):
        check_file(path, {})
    graph = onnx.load(path)
    graph.graph.node[0].op_type = "MatMulInteger"
    graph.graph.node[0].domain = "com.microsoft"
    graph.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(graph, path)
    with pytest.raises(ExportError, match="no operators of the domains"):
        check_file(path, {})


@pytest.mark.assets
def test_resnet20_decides_as_in_pytorch_but_for_the_residuals(
    assets: Path, compressed: Callable[..., Any], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    spec = importlib.util.spec_from_file_location("paredown_tests_models", assets / "models.py")
    assert spec is not None
    assert spec.loader is not None
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    model = models.CifarResNet(20)
    model.load_state_dict(load_file(assets / "cifar10" / "resnet20.safetensors"))
    with np.load(assets / "cifar10" / "test_first5000.npz") as data:
        pixels = torch.from_numpy(data["x"][:128]).permute(0, 3, 1, 2).float() / 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    inputs = ((pixels - mean[:, None, None]) / deviation[:, None, None]).contiguous()
    case = compressed(model.eval(), inputs, INT8)
    output, graph, notes = exported(case, tmp_path)
    assert notes["residuals"] == {"quantized": 9, "floating_point": 0}
    assert "BatchNormalization" not in ops(graph)
    error = float((output - case[1]).square().mean().sqrt() / case[1].square().mean().sqrt())
    assert error < 0.05
    assert int((output.argmax(1) != case[1].argmax(1)).sum()) <= 2
