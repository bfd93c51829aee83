"""Paddings in every runtime, and the line on what a runtime does not have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from paredown.compressors import CompressedModel, LayerSpec, calibrate, compress, trace_anatomy
from paredown.errors import IntegrityError
from paredown.evaluators.runtimes import ExportError, export_model, get_runtime

FORMATS = {"onnx": "onnxruntime", "openvino": "openvino", "tensorrt-onnx": "onnxruntime"}


class Padded(nn.Module):
    """A padding written into the forward; negative sizes cut."""

    def __init__(self, mode: str, sizes: Sequence[int]) -> None:
        super().__init__()
        self.mode, self.sizes = mode, tuple(sizes)
        self.layer = nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pad(x, self.sizes, mode=self.mode)
        return self.layer(functional.adaptive_avg_pool2d(x, 3).mean(1).flatten(1)) + x[:, 0, 1, :4]


def _convolutions(mode: str, dims: int) -> nn.Module:
    kind = nn.Conv1d if dims == 1 else nn.Conv2d
    return nn.Sequential(
        kind(2, 4, 3, padding=2, padding_mode=mode), nn.ReLU(), kind(4, 3, 3, padding=1, padding_mode=mode)
    )


def _run(
    format: str, model: nn.Module, inputs: Tensor, out: Path, spec: LayerSpec | None = None
) -> tuple[Tensor, Tensor]:
    """(outputs of the export, outputs in PyTorch)"""
    model = model.eval()
    if spec is None:
        path = export_model(format, model, {}, {}, None, inputs, out)
        with torch.no_grad():
            return get_runtime(FORMATS[format]).load(path, threads=1).run(inputs), model(inputs)
    anatomy = trace_anatomy(model, inputs)
    calibration = calibrate(model, [inputs], anatomy)
    assignment = dict.fromkeys(anatomy.fqns, spec)
    variants = {x.fqn: compress(model.get_submodule(x.fqn).weight.detach(), spec, x) for x in anatomy.layers}
    path = export_model(format, model, assignment, variants, calibration, inputs, out)
    with CompressedModel(model, anatomy, calibration).apply(assignment, variants), torch.no_grad():
        expected = model(inputs)
    return get_runtime(FORMATS[format]).load(path, threads=1).run(inputs), expected


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
@pytest.mark.parametrize("dims", [1, 2])
def test_padded_convolutions_run_everywhere_in_integers_too(tmp_path: Path, format: str, mode: str, dims: int) -> None:
    torch.manual_seed(0)
    model, inputs = _convolutions(mode, dims), torch.randn(4, 2, *[6] * dims)
    torch.testing.assert_close(*_run(format, model, inputs, tmp_path / "plain"), atol=1e-5, rtol=1e-5)
    spec = LayerSpec(weight_bits=8, activation_bits=8, activation_scheme="symmetric")
    found, expected = _run(format, model, inputs, tmp_path / "int8", spec)
    assert float((found - expected).abs().max()) < 0.02 * float(expected.abs().max())


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("sizes", [(2, 1, 0, 3), (2, -1, -1, 3), (-1, 0, 0, -2), (5, 5, 5, 5)])
def test_circular_padding_of_any_sizes_is_pytorch_s(tmp_path: Path, format: str, sizes: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    found, expected = _run(format, Padded("circular", sizes), torch.randn(3, 2, 5, 6), tmp_path)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_a_graph_for_tensorrt_has_no_pad_that_wraps(tmp_path: Path) -> None:
    model, inputs = _convolutions("circular", 2).eval(), torch.randn(4, 2, 6, 6)
    path = export_model("tensorrt-onnx", model, {}, {}, None, inputs, tmp_path)
    assert "Pad" not in [node.op_type for node in onnx.load(path).graph.node]


class Volume(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.det(x.reshape(-1, 3, 3))[:, None]


class Inside(nn.Module):
    """An operator that OpenVINO lacks, in a module with a name, before one that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.volume, self.last = nn.Linear(9, 9), Volume(), nn.Linear(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.volume(self.first(x)).relu())


def test_a_gap_of_openvino_is_one_line_with_operator_module_and_way_out(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as raised:
        export_model("openvino", Inside().eval(), {}, {}, None, torch.randn(4, 9), tmp_path)
    text = str(raised.value)
    assert "cannot run the operator Det of volume (it has no such operator)" in text
    assert "take the runtime 'onnxruntime' or 'torch'" in text
    assert "\n" not in text
    assert len(text) < 250


def test_the_first_node_that_fails_is_the_cause() -> None:
    from paredown.evaluators.runtimes._gaps import NodePlace, conversion_gap

    error = RuntimeError(
        "Exception from src/core.cpp:84: Check 'false' failed at src/report.cpp:151: FrontEnd API failed with "
        "OpConversionFailure: Model wasn't fully converted. Failed operations detailed log: -- Conv-20 with a message: "
        "While validating ONNX node '<Node(Conv): conv>': the rank has to be known -- Pad-20 with a message: While "
        "validating ONNX node '<Node(Pad): pad>': Exception from src/op/pad.cpp:32: Unsupported padding mode: [wrap] "
        "Summary: -- Conversion is failed for: Conv-20, Pad-20"
    )
    places = [NodePlace(op_type=op, output=op.lower(), module=at) for op, at in (("Pad", "a.b"), ("Conv", "a.b"))]
    assert conversion_gap(error, places).startswith("the operator Pad of a.b (Unsupported padding mode: [wrap]); take")
    unknown = conversion_gap(error, [])
    assert "src/" not in unknown
    assert len(unknown) < 400


def test_an_operator_that_onnx_runtime_lacks_is_told_in_one_line(tmp_path: Path) -> None:
    made = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in ("x", "y")]
    node = onnx.helper.make_node("NoSuchThing", ["x"], ["y"], name="odd")
    graph = onnx.helper.make_graph([node], "g", made[:1], made[1:])
    opsets = [onnx.helper.make_opsetid("", 20)]
    for version, says in (
        (10, "it has no operator NoSuchThing; take the runtime 'openvino' or 'torch'"),
        (99, r"m\.onnx failed: Unsupported model IR version: 99"),
    ):
        onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=version), tmp_path / "m.onnx")
        with pytest.raises(IntegrityError, match=says):
            get_runtime("onnxruntime").load(tmp_path / "m.onnx", threads=1)
