"""Other quantizers on the same model and data. Each gives scores on the report split, or why there are none."""

from __future__ import annotations

import copy
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paredown.evaluators import get_metric
from paredown.evaluators.runtimes import export_model, get_runtime

from .machine import has_vnni
from .subjects import Subject

Rival = Callable[[Subject], Tensor | str]

if peers := os.environ.get("PAREDOWN_PEERS"):
    sys.path.append(peers)  # behind everything else: rivals are no part of the project's environment


def onnxruntime_static(subject: Subject) -> Tensor | str:
    """ONNX Runtime's static quantizer: QDQ, int8 weights for each channel, uint8 activations, ranges by min-max.

    Weights of 7 bits where the processor lacks VNNI, as its makers advise: its kernels would saturate there.
    """
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed"
    from onnxruntime import InferenceSession
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            self._batches: Iterator[dict[str, Any]] = iter(
                {name: batch.numpy()} for batch in subject.calibration.split(16)
            )

        def get_next(self) -> dict[str, Any] | None:
            return next(self._batches, None)

    with tempfile.TemporaryDirectory(prefix="quantbench-") as folder:
        problem, quantized = str(Path(folder) / "prepared.onnx"), str(Path(folder) / "int8.onnx")
        try:
            path = export_model(
                "onnx",
                subject.model,
                {},
                {},
                None,
                subject.calibration[:2],
                Path(folder) / "fp32",
                runtime="onnxruntime",
            )
            quant_pre_process(str(path), problem, skip_symbolic_shape=True)
            name = InferenceSession(problem).get_inputs()[0].name
            quantize_static(
                problem, quantized, Reader(name), quant_format=QuantFormat.QDQ, per_channel=True,
                weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
                reduce_range=not has_vnni(),
            )  # fmt: skip
        except Exception as error:
            return f"its quantizer raised {type(error).__name__}: {str(error).splitlines()[0][:200]}"
        session = get_runtime("onnxruntime").load(Path(quantized), threads=1)
        return _scores(subject, session.run)


def torchao(kind: str) -> Rival:
    """torchao's weight-only and dynamic quantization, which are for Linear layers; the others stay in FP32."""

    def rival(subject: Subject) -> Tensor | str:
        if find_spec("torchao") is None:
            return "torchao is not installed"
        from torchao import quantization as ao

        how = {
            "int8": lambda: ao.Int8WeightOnlyConfig(),
            "int8 dynamic": lambda: ao.Int8DynamicActivationInt8WeightConfig(),
            "int4": lambda: ao.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=ao.PerAxis(0)),
            "int3": lambda: ao.IntxWeightOnlyConfig(weight_dtype=torch.int3, granularity=ao.PerAxis(0)),
        }
        model = copy.deepcopy(subject.model)
        if sum(isinstance(m, torch.nn.Linear) for m in model.modules()) < 2:
            return "it quantizes Linear layers, of which this model has one"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ao.quantize_(model, how[kind]())
                with torch.no_grad():
                    return _scores(subject, model)
        except Exception as error:
            return f"it raised {type(error).__name__}: {str(error).splitlines()[0][:200]}"

    return rival


def nncf(subject: Subject) -> Tensor | str:
    """NNCF's post-training quantization of the OpenVINO model, all defaults."""
    if find_spec("nncf") is None or find_spec("openvino") is None:
        return "nncf is not installed"
    import nncf as package
    import openvino

    with tempfile.TemporaryDirectory(prefix="quantbench-") as folder:
        try:
            path = export_model(
                "onnx", subject.model, {}, {}, None, subject.calibration[:2], Path(folder) / "fp32",
                runtime="onnxruntime",
            )  # fmt: skip
            model = openvino.Core().read_model(path)
            data = package.Dataset([batch.numpy() for batch in subject.calibration.split(1)])
            quantized = package.quantize(model, data, subset_size=len(subject.calibration))
            compiled = openvino.Core().compile_model(quantized, "CPU")
        except Exception as error:
            return f"it raised {type(error).__name__}: {str(error).splitlines()[0][:200]}"
        return _scores(subject, lambda inputs: torch.from_numpy(next(iter(compiled(inputs.numpy()).values())).copy()))


def _scores(subject: Subject, run: Callable[[Any], Tensor]) -> Tensor:
    metric, split = get_metric(subject.metric), subject.report
    outputs = torch.cat([run(inputs) for inputs, _ in split.batches(subject.batch_size)])
    return metric.scores(outputs, metric.targets_of(split), None)


RIVALS: dict[str, Rival] = {
    "ONNX Runtime static W8A8": onnxruntime_static,
    "NNCF W8A8": nncf,
    "torchao W8, Linear only": torchao("int8"),
    "torchao W8A8 dynamic, Linear only": torchao("int8 dynamic"),
    "torchao W4, Linear only": torchao("int4"),
    "torchao W3, Linear only": torchao("int3"),
}
