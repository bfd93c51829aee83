"""What is timed against each other: our exports in each format, and what the makers' quantizers give by default."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from quantbench.subjects import Subject
from torch import Tensor

from paredown.compressors import (
    Anatomy,
    Calibration,
    CompressedModel,
    LayerInfo,
    LayerSpec,
    applicable,
    calibrate,
    compress,
    forward,
    module_at,
    trace_anatomy,
)
from paredown.errors import SpecError
from paredown.evaluators.runtimes import get_runtime

N_CALIBRATION = 64
COMPILED = ("onnxruntime", "openvino")


@dataclass(kw_only=True)
class Contestant:
    """A loaded model, or why there is none. `expected`: what PyTorch gives for the report split's first samples."""

    name: str
    runtime: str
    format: str
    session: Any = None
    reason: str = ""
    file_bytes: int = 0
    export_s: float = 0.0
    expected: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Problem:
    subject: Subject
    anatomy: Anatomy
    calibration: Calibration

    @classmethod
    def of(cls, subject: Subject) -> Problem:
        anatomy = trace_anatomy(subject.model, subject.report.take(1).inputs)
        inputs = subject.calibration[:N_CALIBRATION]
        return cls(
            subject=subject,
            anatomy=anatomy,
            calibration=calibrate(subject.model, [inputs], anatomy, tensors=True, products=True),
        )


def _pattern(**fields: Any) -> LayerSpec | None:
    """A spec with a field that this version may not have."""
    try:
        return LayerSpec.from_dict(fields)
    except (SpecError, TypeError):
        return None


FORMATS: dict[str, LayerSpec | None] = {
    "fp32": LayerSpec(),
    "int8": LayerSpec(weight_bits=8, activation_bits=8),
    "int8 + products": LayerSpec(weight_bits=8, activation_bits=8, activation_scope="product"),
    "w8": LayerSpec(weight_bits=8),
    "w4g32": LayerSpec(weight_bits=4, group_size=32),
    "fp16": LayerSpec(weight_bits=16, weight_format="fp16"),
    "2:4": _pattern(sparsity=0.5, pattern="2:4"),
    "sparse90": LayerSpec(sparsity=0.9),
}


def ours(problem: Problem, folder: Path, n_compared: int, left_out: Sequence[str] = ()) -> Iterator[Contestant]:
    """Each format in each runtime that has kernels, and the original in PyTorch, eager and compiled."""
    pairs = [("torch", "fp32"), ("torch-compile", "fp32"), *product(COMPILED, FORMATS)]
    for runtime, format in pairs:
        if f"{runtime} {format}" not in left_out:
            yield _ours(problem, runtime, format, folder, n_compared)


def _ours(problem: Problem, runtime: str, format: str, folder: Path, n_compared: int) -> Contestant:
    found = Contestant(name=f"{runtime} {format}", runtime=runtime, format=format)
    spec, subject = FORMATS[format], problem.subject
    if spec is None:
        found.reason = "this version has no such pattern"
        return found
    if (line := get_runtime(runtime).available()) is not None:
        found.reason = line
        return found
    assignment = {layer.fqn: _for_layer(layer, spec, runtime) for layer in problem.anatomy.layers}
    if spec.activation_scope == "product" and not any(
        each.activation_scope == "product" for each in assignment.values()
    ):
        found.reason = "no attention whose factors are outputs of linear layers"
        return found
    if format != "fp32" and all(each.is_neutral for each in assignment.values()):
        found.reason = "the format fits no layer"
        return found
    variants = {
        fqn: compress(module_at(subject.model, fqn).weight.detach(), each, problem.anatomy[fqn])
        for fqn, each in assignment.items()
    }
    start = time.perf_counter()
    try:
        path = get_runtime(runtime).export(
            subject.model, assignment, variants, problem.calibration, subject.calibration[:2], folder / found.name
        )
        found.export_s = time.perf_counter() - start
        found.session = get_runtime(runtime).load(path, threads=1, model_factory=lambda: subject.model)
    except Exception as error:  # the table says why, and goes on
        found.reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return found
    found.file_bytes = sum(file.stat().st_size for file in path.parent.iterdir())
    resident = CompressedModel(subject.model, problem.anatomy, problem.calibration)
    with resident.apply(assignment, variants), torch.no_grad():
        found.expected = forward(subject.model, subject.report.take(n_compared).inputs).clone()
    return found


def _for_layer(layer: LayerInfo, spec: LayerSpec, runtime: str) -> LayerSpec:
    """As a uniform setting of the search has it: tensors are rounded where ONNX Runtime needs that."""
    tensor, of_layer = (
        dataclasses.replace(spec, activation_scope=scope) if spec.changes_activation else spec
        for scope in ("tensor", "layer")
    )
    ways = [spec] if spec.activation_scope == "product" else []
    ways += [tensor] if runtime == "onnxruntime" else []
    ways += [
        of_layer,
        dataclasses.replace(spec, group_size=0) if spec.group_size else spec,
        spec.weight_only,
        LayerSpec(),
    ]
    return next(each for each in ways if applicable(each, layer) is None)


def peers(problem: Problem, folder: Path, fp32_onnx: Path) -> Iterator[Contestant]:
    """ONNX Runtime's static quantizer and NNCF, both by their defaults, on our FP32 graph and the same samples."""
    for name, runtime, make in (
        ("ORT quantize_static", "onnxruntime", _ort_static),
        ("ORT quantize_static per channel", "onnxruntime", _ort_static_per_channel),
        ("NNCF", "openvino", _nncf),
    ):
        found = Contestant(name=name, runtime=runtime, format="int8 (theirs)")
        start = time.perf_counter()
        try:
            path = make(problem, fp32_onnx, folder / name.replace(" ", "-"))
            found.export_s = time.perf_counter() - start
            found.session = get_runtime(runtime).load(path, threads=1)
            found.file_bytes = sum(file.stat().st_size for file in path.parent.iterdir())
        except Exception as error:  # missing, or it cannot take this model: the table says which
            found.reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        yield found


def _ort_static(problem: Problem, fp32: Path, folder: Path, **options: Any) -> Path:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = onnx.load(fp32).graph.input[0].name
    samples = iter([{name: x[None].numpy()} for x in problem.subject.calibration[:N_CALIBRATION]])

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Mapping[str, Any] | None:
            return next(samples, None)

    folder.mkdir(parents=True)
    ready = folder.parent / f"{folder.name}.pre.onnx"
    quant_pre_process(str(fp32), str(ready), skip_symbolic_shape=True)
    path = folder / "model.onnx"
    quantize_static(str(ready), str(path), Reader(), **options)
    return path


def _ort_static_per_channel(problem: Problem, fp32: Path, folder: Path) -> Path:
    return _ort_static(problem, fp32, folder, per_channel=True)


def _nncf(problem: Problem, fp32: Path, folder: Path) -> Path:
    if importlib.util.find_spec("nncf") is None:
        raise RuntimeError("NNCF is not there; pip install --no-deps --target DIR nncf tabulate pydot, and PYTHONPATH")
    from paredown.evaluators.runtimes._openvino import _core, _openvino

    openvino, nncf = _openvino(), importlib.import_module("nncf")
    nncf.set_log_level(40)
    samples = [x[None].numpy() for x in problem.subject.calibration[:N_CALIBRATION]]
    quantized = nncf.quantize(_core().read_model(fp32), nncf.Dataset(samples), subset_size=N_CALIBRATION)
    folder.mkdir(parents=True)
    path = folder / "model.xml"
    openvino.save_model(quantized, path, compress_to_fp16=False)
    return path
