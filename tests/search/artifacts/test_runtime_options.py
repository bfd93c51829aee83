"""What is deployed is what was verified: options of a runtime go from the profile into the file, and back out of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from paredown.errors import InputError, IntegrityError, TaskError
from paredown.evaluators import Split, reference_outputs
from paredown.evaluators.runtimes import OpenVinoOptions, get_runtime, options_from, runtime_with
from paredown.hardware_profiles import HardwareProfile, ProfileError, load_profile
from paredown.search import Task, apply_config, verify_artifact
from paredown.search.artifacts import Exporter, read_artifact
from paredown.search.artifacts._judge import check_parity
from paredown.search.problem import prepare
from paredown.search.task import runtime_options

TINY = Path(__file__).parents[1] / "tiny"
LAYERS = ("first", "second", "third", "last")
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weights": {fqn: {"weight_bits": 8} for fqn in LAYERS},
    "narrow weights": {fqn: {"weight_bits": 4, "group_size": 32} for fqn in ("second", "third")},
    "integers": {fqn: {"weight_bits": 8, "activation_bits": 8} for fqn in LAYERS},
}
RUNTIMES = {"openvino": "openvino", "onnx": "onnxruntime", "paredown": "torch", "pt2": "torch"}
NO_DYNAMIC = {"dynamic_quantization_group_size": 0}


def task_for(runtime: str, **options: Any) -> Task:
    return Task.from_dict(
        {
            "model": {"factory": "wide.py:model"},
            "data": {"factory": "wide.py:data", "calibration": 20, "search": 40, "report": 60},
            "hardware": {"runtime": runtime, "latency_seconds": 0.02, "runtime_options": options},
            "mlflow": {"enabled": False},
        },
        base_dir=TINY,
    )


def made(out: Path, format: str, kind: str, **options: Any) -> Path:
    need(format)
    config = {"schema_version": 2, "layers": KINDS[kind]}
    return apply_config(config, task_for(RUNTIMES[format], **options), out, format=format)


def need(format: str) -> None:
    if find_spec({"openvino": "openvino", "onnx": "onnxruntime"}.get(format, "torch")) is None:
        pytest.skip(f"{format} cannot be run here")


def some() -> Tensor:
    return torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(9))


def ran_by_the_notes(folder: Path) -> np.ndarray[Any, Any]:
    """Outputs of the notes' own code in a process of its own, with inputs that are not zero."""
    text = (folder / "LOAD.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert "paredown" not in code or "paredown.load" in code
    np.save(folder.parent / "x.npy", some().numpy())
    given = f"numpy.load({str(folder.parent / 'x.npy')!r})"
    code, n = re.subn(r"\[(?:np|torch)\.zeros\(.*\)\]  # put", f"[{given}]  # put", code)
    assert n == 1
    if "torch.set" in code:
        code = code.replace(given, f"torch.from_numpy({given})")
    code = code.replace("from your_module import", "from wide import")
    code = f"import numpy\n{code}\nfirst = outputs[0] if isinstance(outputs, list) else outputs\n"
    code += f"numpy.save({str(folder.parent / 'y.npy')!r}, numpy.asarray(first))\n"
    path = [str(TINY), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{code}"], cwd=folder, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: np.ndarray[Any, Any] = np.load(folder.parent / "y.npy")
    return found


def ran_by_us(folder: Path) -> np.ndarray[Any, Any]:
    artifact = read_artifact(folder)
    session = get_runtime(artifact.runtime).load(artifact.main_path, threads=1, model_factory=lambda: wide())
    outputs = session.run(some())
    assert isinstance(outputs, Tensor)
    return outputs.numpy()


def wide() -> nn.Module:
    namespace: dict[str, Any] = {"__name__": "wide"}
    exec(compile((TINY / "wide.py").read_text(), "wide.py", "exec"), namespace)
    model: nn.Module = namespace["model"]()
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("format", RUNTIMES)
def test_the_notes_run_what_was_measured(tmp_path: Path, format: str, kind: str) -> None:
    folder = made(tmp_path / "out", format, kind)
    by_notes, by_us = ran_by_the_notes(folder), ran_by_us(folder)
    assert np.abs(by_us).max() > 0.01
    np.testing.assert_allclose(by_notes, by_us, atol=1e-6 * float(np.abs(by_us).max()))


@pytest.mark.parametrize("kind", ["weights", "narrow weights"])
def test_dynamic_quantization_is_said_and_can_be_left_out(tmp_path: Path, kind: str) -> None:
    usual = read_artifact(made(tmp_path / "usual", "openvino", kind))
    exact = read_artifact(made(tmp_path / "exact", "openvino", kind, **NO_DYNAMIC))
    assert usual.runtime_options == {
        "inference_precision": "f32", "dynamic_quantization_group_size": "default", "snippets_mode": "disable",
    }  # fmt: skip
    assert exact.runtime_options == {**usual.runtime_options, **NO_DYNAMIC}
    if usual.claims["runtime_apart"].value <= 1e-4:
        pytest.skip("the kernels of this CPU do not round the inputs")
    assert exact.claims["runtime_apart"].value <= 1e-4
    assert "Why: OpenVINO rounds the inputs of layers with narrow weights to 8 bits, in groups of " in usual.agreement
    assert re.search(r"without that the same file is within \de-\d\d of|within \d\.\de-0[5-9] of", usual.agreement)
    assert "OpenVINO rounds" not in exact.agreement
    assert verify_artifact(usual.folder, task=task_for("openvino", **NO_DYNAMIC))["ok"]  # its own options count
    assert verify_artifact(exact.folder, task=task_for("openvino"))["ok"]


def test_openvino_itself_reads_the_group_size_from_the_file(tmp_path: Path) -> None:
    folder = made(tmp_path / "out", "openvino", "weights", **NO_DYNAMIC)
    import openvino  # type: ignore[import-untyped]

    compiled = openvino.Core().compile_model(folder / "model.xml", "CPU")
    assert compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE") == 0


@pytest.mark.parametrize("kind", KINDS)
def test_another_precision_is_said_and_never_called_exact(tmp_path: Path, kind: str) -> None:
    need("openvino")
    import openvino

    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bfloat16")
    artifact = read_artifact(made(tmp_path / "out", "openvino", kind, inference_precision="bf16"))
    assert artifact.runtime_options["inference_precision"] == "bf16"
    assert artifact.claims["runtime_apart"].value > 1e-4
    assert "OpenVINO computes in bf16" in artifact.agreement or "(99.9 % is expected of integers)" in artifact.agreement
    assert "OpenVINO computes in bf16" in artifact.machine["rounding"]
    own = artifact.folder / "model.xml"
    by_us = ran_by_us(artifact.folder)
    exactly = get_runtime("openvino").load_exactly(own, threads=1).run(some())  # type: ignore[attr-defined]
    assert np.abs(by_us - exactly.numpy()).max() > 0


def test_a_file_that_computes_something_else_is_not_excused(tmp_path: Path) -> None:
    """Rounding hides it from the bound of the answers, and the file alone shows it."""
    need("openvino")
    problem = prepare(task_for("openvino"), store=tmp_path / "store")
    exporter, rounding = Exporter(problem), "the runtime rounds"
    assignment: dict[str, Any] = {}
    right = exporter.export(assignment, "openvino", tmp_path / "right")
    with torch.no_grad():
        problem.context.model.last.bias += 0.003  # type: ignore[operator]
    wrong = exporter.export(assignment, "openvino", tmp_path / "wrong")
    with torch.no_grad():
        problem.context.model.last.bias -= 0.003  # type: ignore[operator]
    for main, is_broken in ((right, False), (wrong, True)):
        outputs = reference_outputs(problem.context.model, problem.report, 16).outputs
        assert isinstance(outputs, Tensor)
        found = check_parity(exporter, assignment, [outputs * 1.002], main, runtime="openvino", rounding=rounding)
        assert (found.is_broken, "it computes something else" in found.text) == (is_broken, is_broken)
        assert rounding in found.text
        assert not found.is_within or not is_broken


def test_a_runtime_that_cannot_leave_its_rounding_out_is_not_believed(tmp_path: Path) -> None:
    problem = prepare(task_for("torch"), store=tmp_path / "store")
    exporter = Exporter(problem)
    main = exporter.export({}, "paredown", tmp_path / "out")
    outputs = reference_outputs(problem.context.model, problem.report, 16).outputs
    assert isinstance(outputs, Tensor)
    found = check_parity(exporter, {}, [outputs * 1.002], main, runtime="torch", rounding="it rounds")
    assert found.is_broken
    assert "so that the file cannot be checked" in found.text


def test_levels_of_onnxruntime_go_into_the_file(tmp_path: Path) -> None:
    folder = made(tmp_path / "out", "onnx", "integers", graph_optimization_level="disabled", flush_denormals=True)
    session = get_runtime("onnxruntime").load(folder / "model.onnx", threads=1)
    assert session.options == options_from(  # type: ignore[attr-defined]
        "onnxruntime", {"graph_optimization_level": "disabled", "flush_denormals": True}
    )
    text = (folder / "LOAD.md").read_text()
    assert "GraphOptimizationLevel.ORT_DISABLE_ALL" in text
    assert '"session.set_denormal_as_zero", "1"' in text
    np.testing.assert_allclose(ran_by_the_notes(folder), ran_by_us(folder), atol=1e-6)


@pytest.mark.parametrize(
    ("runtime", "options", "says"),
    [
        ("openvino", {"precision": "f32"}, "precision is no option of the runtime 'openvino'; it has inference_prec"),
        ("openvino", {"inference_precision": "fp32"}, "must be one of 'default', 'f32', 'bf16', 'f16', got 'fp32'"),
        ("openvino", {"dynamic_quantization_group_size": -1}, "a whole number from 0 to 65536, got -1"),
        ("openvino", {"dynamic_quantization_group_size": True}, "a whole number from 0 to 65536, got True"),
        ("onnxruntime", {"graph_optimization_level": 3}, "must be one of 'all', 'extended', 'basic', 'disabled'"),
        ("onnxruntime", {"flush_denormals": 1}, "must be one of False, True, got 1"),
        ("torch", {"inference_precision": "f32"}, "no option of the runtime 'torch'; it has none"),
        ("auto", {"inference_precision": "f32"}, "are of one runtime: name it as runtime"),
    ],
)
def test_what_no_session_can_have_is_refused_with_the_task(runtime: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(TaskError, match=re.escape(says)):
        task_for(runtime, **options)


def test_the_task_goes_over_the_profile_and_the_profile_over_the_runtime() -> None:
    usual = load_profile("x86-64-openvino")
    assert usual.runtime_options == {"inference_precision": "f32"}
    silent = HardwareProfile.from_dict({k: v for k, v in usual.to_dict().items() if k != "runtime_options"})
    wrong = HardwareProfile.from_dict({**usual.to_dict(), "runtime_options": {"level": 3}})
    named = task_for("openvino", dynamic_quantization_group_size=64)
    assert runtime_options(named, [usual], "openvino") == OpenVinoOptions(
        inference_precision="f32", dynamic_quantization_group_size=64
    )
    assert runtime_options(named, [silent], "openvino") == OpenVinoOptions(dynamic_quantization_group_size=64)
    assert (
        runtime_options(task_for("openvino", inference_precision="default"), [usual], "openvino") == OpenVinoOptions()
    )
    other = runtime_options(task_for("onnxruntime"), [load_profile("x86-64-onnxruntime")], "openvino")
    assert other == OpenVinoOptions(inference_precision="f32")  # of the usual profile of the format's runtime
    assert runtime_options(task_for("torch"), [], "torch") is None
    with pytest.raises(ProfileError, match=r"the profile x86-64-openvino: runtime_options\.level is no option"):
        runtime_options(named, [wrong], "openvino")
    with pytest.raises(InputError, match="the runtime 'onnxruntime' got options of 'openvino'"):
        runtime_with("onnxruntime", OpenVinoOptions())


def test_a_file_with_unknown_options_is_refused_and_one_with_none_runs_exactly(tmp_path: Path) -> None:
    folder = made(tmp_path / "out", "openvino", "weights")
    path = folder / "model.xml"
    text = path.read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if "paredown_options" in line)
    path.write_text(text.replace(line, line.replace("inference_precision", "precision")), encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"names options that OpenVINO has not: .*precision is no option"):
        get_runtime("openvino").load(path, threads=1)
    path.write_text(text.replace(line, ""), encoding="utf-8")
    session = get_runtime("openvino").load(path, threads=1)
    assert session.options == OpenVinoOptions.exact()  # type: ignore[attr-defined]
    rows = Split("rows", some(), None)
    assert session.run(rows.inputs) is not None
    assert session.rounding() == ""  # type: ignore[attr-defined]


def test_an_artifact_from_before_the_options_has_those_that_it_was_measured_with(tmp_path: Path) -> None:
    folder = made(tmp_path / "out", "openvino", "plain")
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    del data["runtime_options"], data["digests"]
    path.write_text(json.dumps({**data, "schema_version": 3}))
    assert read_artifact(folder).runtime_options == {
        "inference_precision": "f32", "dynamic_quantization_group_size": 0, "snippets_mode": "disable",
    }  # fmt: skip
