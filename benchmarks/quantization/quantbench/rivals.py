"""Other quantizers on the same model and data. Each gives scores on the report split, or why there are none."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paredown.evaluators import get_metric
from paredown.evaluators.runtimes import export_model, get_runtime

from .subjects import Subject

Rival = Callable[[Subject], Tensor | str]


def onnxruntime_static(subject: Subject) -> Tensor | str:
    """ONNX Runtime's static quantizer: QDQ, int8 weights for each channel, uint8 activations, ranges by min-max."""
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
        prepared, quantized = str(Path(folder) / "prepared.onnx"), str(Path(folder) / "int8.onnx")
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
            quant_pre_process(str(path), prepared, skip_symbolic_shape=True)
            name = InferenceSession(prepared).get_inputs()[0].name
            quantize_static(
                prepared, quantized, Reader(name), quant_format=QuantFormat.QDQ, per_channel=True,
                weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
            )  # fmt: skip
        except Exception as error:
            return f"its quantizer raised {type(error).__name__}: {str(error).splitlines()[0][:200]}"
        session = get_runtime("onnxruntime").load(Path(quantized), threads=1)
        return _scores(subject, session.run)


def not_installed(package: str) -> Rival:
    """A place for a rival that is not here: it says so, in words, in the result."""

    def rival(subject: Subject) -> Tensor | str:
        if find_spec(package) is None:
            return f"{package} is not installed"
        return f"{package} is installed, and has no adapter here yet"

    return rival


def _scores(subject: Subject, run: Callable[[Any], Tensor]) -> Tensor:
    metric, split = get_metric(subject.metric), subject.report
    outputs = torch.cat([run(inputs) for inputs, _ in split.batches(subject.batch_size)])
    return metric.scores(outputs, metric.targets_of(split), None)


RIVALS: dict[str, Rival] = {
    "ONNX Runtime static W8A8": onnxruntime_static,
    "torchao": not_installed("torchao"),
    "NNCF": not_installed("nncf"),
}
