"""Files of `export_model`, beyond the checks of the contract suite."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from paredown.compressors import (
    CompressedModel,
    LayerSpec,
    applicable,
    calibrate,
    compress,
    forward,
    module_at,
    trace_anatomy,
)
from paredown.errors import ConfigError, InputError, MissingExtra
from paredown.evaluators.runtimes import (
    ExportError,
    TorchRuntime,
    export_model,
    get_runtime,
    list_formats,
    register_runtime,
)
from paredown.testing import AWKWARD

INT8 = LayerSpec(weight_bits=8, activation_bits=8)


def compressed(model: nn.Module, inputs: Any, spec: LayerSpec) -> tuple[tuple[Any, ...], torch.Tensor]:
    """The arguments of an export with `spec` wherever it applies, and what PyTorch computes."""
    anatomy = trace_anatomy(model, inputs)
    calibration = calibrate(model, [inputs], anatomy)
    assignment = {layer.fqn: spec for layer in anatomy.layers if not applicable(spec, layer)}
    variants = {
        fqn: compress(module_at(model, fqn).weight.detach(), each, anatomy[fqn])  # type: ignore[operator]
        for fqn, each in assignment.items()
    }
    with CompressedModel(model, anatomy, calibration).apply(assignment, variants), torch.no_grad():
        expected = forward(model, inputs)
    return (model, assignment, variants, calibration, inputs), expected


def test_formats_are_those_of_the_runtimes_pt2_and_the_exports() -> None:
    assert list_formats()[:3] == ("paredown", "onnx", "openvino")
    assert list_formats()[-5:] == ("pt2", "tensorrt-onnx", "compressed-tensors", "torchao-config", "executorch")


def test_an_unknown_format_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'tflite'; known are paredown, onnx, openvino, pt2"):
        export_model("tflite", nn.Linear(2, 2), {}, {}, None, torch.zeros(1, 2), tmp_path)


def test_a_second_runtime_of_one_name_is_refused() -> None:
    with pytest.raises(InputError, match="'torch' is registered already"):
        register_runtime(TorchRuntime())


def test_pt2_agrees_in_a_process_that_has_no_paredown(tmp_path: Path) -> None:
    args, expected = compressed(*AWKWARD["convolutions"](), LayerSpec(weight_bits=3, activation_bits=8))
    path = export_model("pt2", *args, tmp_path)
    torch.save((args[-1], expected), tmp_path / "case.pt")
    script = """
import sys, torch
inputs, expected = torch.load(sys.argv[2], weights_only=True)
model = torch.export.load(sys.argv[1]).module()
assert "paredown" not in sys.modules
print(float((model(inputs) - expected).abs().max()), tuple(model(inputs[:3]).shape))
"""
    found = subprocess.run(
        [sys.executable, "-c", script, str(path), str(tmp_path / "case.pt")],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout.split(maxsplit=1)  # fmt: skip
    assert float(found[0]) <= 1e-6
    assert found[1].strip() == str((3, *expected.shape[1:]))


def test_pt2_is_tied_to_no_operation_of_ours(tmp_path: Path) -> None:
    args, _ = compressed(*AWKWARD["mlp"](), INT8)
    program = torch.export.load(export_model("pt2", *args, tmp_path))
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert targets
    assert all(target.startswith("aten.") for target in targets)


@pytest.mark.parametrize("format", ["onnx", "openvino", "pt2"])
def test_nothing_is_printed_and_no_path_is_told(format: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    args, _ = compressed(*AWKWARD["mlp"](), INT8)
    path = export_model(format, *args, tmp_path)
    assert capfd.readouterr().out == ""
    here = str(Path(__file__).resolve().parents[3]).encode()
    for file in path.parent.iterdir():
        assert here not in file.read_bytes(), file.name


def test_openvino_leaves_its_own_files_only(tmp_path: Path) -> None:
    args, _ = compressed(*AWKWARD["mlp"](), INT8)
    assert export_model("openvino", *args, tmp_path) == tmp_path / "model.xml"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.bin", "model.xml"]


@pytest.mark.parametrize(
    ("format", "package", "extra"),
    [("onnx", "onnx", "onnx"), ("onnx", "onnxscript", "onnx"), ("openvino", "openvino", "openvino")],
)
def test_a_missing_package_is_named_with_its_extra(
    format: str, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    hidden: Callable[[str], Any] = lambda name, *rest: None if name == package else found(name, *rest)
    monkeypatch.setattr("paredown.evaluators.runtimes._base.find_spec", hidden)
    with pytest.raises(MissingExtra, match=rf"'{package}' is not installed.*pip install 'paredown\[{extra}\]'"):
        export_model(format, nn.Linear(2, 2), {}, {}, None, torch.zeros(1, 2), tmp_path)
    runtime = get_runtime({"onnx": "onnxruntime", "openvino": "openvino"}[format])
    assert f"paredown[{extra}]" in (runtime.available() or "")


def test_importing_the_runtimes_imports_none() -> None:
    code = """
import sys
import paredown.evaluators.runtimes as runtimes
runtimes.list_formats(), [runtimes.get_runtime(name).available() for name in runtimes.list_runtimes()]
heavy = {"torch", "numpy", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "openvino"} & set(sys.modules)
assert not heavy, heavy
"""
    source = Path(__file__).resolve().parents[3] / "src"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(source)})


def test_openvino_is_imported_without_its_telemetry() -> None:
    code = """
import sys
from paredown.evaluators.runtimes._openvino import _openvino
_openvino()
from openvino.tools.ovc import telemetry_utils
assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub", telemetry_utils.tm
assert not [name for name in sys.modules if name.split(".")[0] == "openvino_telemetry"]
"""
    source = Path(__file__).resolve().parents[3] / "src"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(source)})


def test_activations_need_a_calibration(tmp_path: Path) -> None:
    args, _ = compressed(*AWKWARD["mlp"](), INT8)
    model, assignment, variants, _, inputs = args
    with pytest.raises(ConfigError, match="needs a calibration; none was given"):
        export_model("onnx", model, assignment, variants, None, inputs, tmp_path)


def test_a_variant_that_is_not_what_the_assignment_says_is_refused(tmp_path: Path) -> None:
    args, _ = compressed(*AWKWARD["mlp"](), INT8)
    model, assignment, variants, calibration, inputs = args
    fqn = next(iter(assignment))
    with pytest.raises(ConfigError, match=f"the variant given for {fqn} is w8, but the assignment says w4"):
        export_model("onnx", model, {fqn: LayerSpec(weight_bits=4)}, variants, calibration, inputs, tmp_path)
    with pytest.raises(ConfigError, match=f"no compressed weight was given for {fqn}"):
        export_model("onnx", model, assignment, {}, calibration, inputs, tmp_path)


def test_layers_that_never_run_are_left_alone(tmp_path: Path) -> None:
    model, inputs = AWKWARD["never_runs"]()
    args, expected = compressed(model, inputs, INT8)
    anatomy = trace_anatomy(model, inputs)
    assignment = {**args[1], **dict.fromkeys(anatomy.unused, INT8)}
    path = export_model("onnx", model, assignment, *args[2:], tmp_path, anatomy=anatomy)
    output = get_runtime("onnxruntime").load(path, threads=1).run(inputs)
    torch.testing.assert_close(output, expected, atol=1e-2, rtol=0)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) if float(x.sum()) > 0 else x


def test_a_model_that_cannot_be_traced_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"torch\.export cannot trace this model: .*'torch'"):
        export_model("onnx", Branches().eval(), {}, {}, None, torch.ones(2, 3), tmp_path)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_inputs_that_do_not_fit_are_named(name: str, tmp_path: Path) -> None:
    args, _ = compressed(*AWKWARD["keyword_inputs"](), LayerSpec())
    runtime = get_runtime(name)
    session = runtime.load(runtime.export(*args, tmp_path), threads=1)
    inputs = args[-1]
    with pytest.raises(InputError, match="named input_ids, scale; got ids, scale"):
        session.run({"ids": inputs["input_ids"], "scale": inputs["scale"]})
    with pytest.raises(InputError, match="has 2 inputs"):
        session.run(inputs["input_ids"])
    with pytest.raises(InputError, match="refused the inputs; expected"):
        session.run({"input_ids": inputs["input_ids"], "scale": torch.rand(4, 5)})


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_file_that_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        get_runtime(name).load(tmp_path / "model.xml", threads=1)


SIGNALS = """
import signal, sys, time
from pathlib import Path
from paredown.compressors import calibrate, trace_anatomy
from paredown.evaluators.runtimes import get_runtime
from paredown.testing import AWKWARD

model, inputs = AWKWARD["convolutions"]()
runtime, folder = get_runtime("openvino"), Path(sys.argv[1])
calibration = calibrate(model, [inputs], trace_anatomy(model, inputs))
path = runtime.export(model, {}, {}, calibration, inputs, folder)
first, second = runtime.load(path, threads=1), runtime.load(path, threads=1)
first.run(inputs), second.run(inputs)
del first
del second
seen = []
signal.signal(signal.SIGALRM, lambda *_: seen.append(True))
signal.setitimer(signal.ITIMER_REAL, 0.01)
while not seen:
    time.sleep(0.01)
"""


def test_signals_arrive_when_openvino_sessions_have_come_and_gone(tmp_path: Path) -> None:
    """The CPU plugin sets an alternate signal stack; two of them leave one behind that is not mapped any more."""
    pytest.importorskip("openvino")
    source = Path(__file__).resolve().parents[3] / "src"
    done = subprocess.run(
        [sys.executable, "-c", SIGNALS, str(tmp_path)], check=False, timeout=120, env={"PYTHONPATH": str(source)}
    )
    assert done.returncode == 0


class _Eigenvalues(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x.reshape(-1, 4, 4)).abs()


def test_an_operator_that_is_decomposed_on_the_way_is_named_with_its_module(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(16, 16), _Eigenvalues()).eval()
    with pytest.raises(ExportError, match=r"aten\.linalg_eig\.default in 1 has no form there"):
        export_model("onnx", model, {}, {}, None, torch.randn(2, 16), tmp_path)
