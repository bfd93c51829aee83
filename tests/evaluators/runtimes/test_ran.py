"""Executed kernels by layer, and the layers that ran differently from the plan."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from paredown.compressors import LayerSpec, calibrate, compress, module_at, trace_anatomy
from paredown.evaluators.runtimes import get_runtime, is_integer, kernels_by_layer, ran_otherwise

INT8 = LayerSpec(weight_bits=8, activation_bits=8)


class Residual(nn.Module):
    """`two` feeds a sum in FP32: ONNX Runtime has no integer kernel for it, OpenVINO has."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head((x + self.two(functional.relu(self.one(x)))).mean(dim=(2, 3)))
        return y


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_fallback_is_named(runtime: str, tmp_path: Path) -> None:
    if (why := get_runtime(runtime).available()) is not None:
        pytest.skip(why)
    torch.manual_seed(0)
    model, x = Residual().eval().requires_grad_(False), torch.randn(4, 8, 6, 6)
    anatomy = trace_anatomy(model, x[:1])
    chosen = {"one": INT8, "two": INT8}
    variants = {
        fqn: compress(module_at(model, fqn).weight.detach(), INT8.weight_only, anatomy[fqn])  # type: ignore[operator]
        for fqn in chosen
    }
    calibration = calibrate(model, [x], anatomy)
    path = get_runtime(runtime).export(model, chosen, variants, calibration, x[:2], tmp_path)
    kernels = kernels_by_layer(path, runtime, anatomy.fqns)
    assert is_integer(kernels["one"])
    wrong = ran_otherwise(kernels, {fqn: fqn in chosen for fqn in anatomy.fqns})
    if runtime == "onnxruntime":
        assert list(wrong) == ["two"]
        assert wrong["two"].startswith("was to run in int8, and ran in FP32 as ")
    else:
        assert wrong == {}


def test_what_runs_in_integers_by_hand() -> None:
    for kernel in ("QLinearConv", "QGemm", "MatMulIntegerToFloat", "Convolution brgconv_avx512_I8 u8"):
        assert is_integer(kernel)
    for kernel in ("FusedConv", "MatMul", "Convolution brgconv_avx512_f32 f32"):
        assert not is_integer(kernel)
    assert ran_otherwise({"a": "QGemm"}, {}) == {"a": "was to run in FP32, and ran in int8 as QGemm"}


def test_a_runtime_that_does_not_say_says_nothing(tmp_path: Path) -> None:
    assert kernels_by_layer(tmp_path / "model.safetensors", "torch", ["a"]) == {}
