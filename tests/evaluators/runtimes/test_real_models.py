"""ResNet-20 with its published weights: what is exported decides as PyTorch does."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from paredown.compressors import (
    CompressedModel,
    LayerSpec,
    calibrate,
    compress,
    forward,
    module_at,
    trace_anatomy,
)
from paredown.evaluators.runtimes import OnnxRuntimeSession, get_runtime

pytestmark = pytest.mark.assets

INT8 = LayerSpec(weight_bits=8, activation_bits=8)


@pytest.fixture(scope="module")
def resnet(assets: Path) -> tuple[torch.nn.Module, Tensor]:
    """(the model, 128 normalised test images)"""
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
    return model.eval(), ((pixels - mean[:, None, None]) / deviation[:, None, None]).contiguous()


def compressed(model: torch.nn.Module, inputs: Tensor, specs: list[LayerSpec]) -> tuple[tuple[Any, ...], Tensor]:
    anatomy = trace_anatomy(model, inputs[:1])
    calibration = calibrate(model, [inputs], anatomy)
    assignment = {layer.fqn: specs[i % len(specs)] for i, layer in enumerate(anatomy.layers)}
    variants = {
        fqn: compress(module_at(model, fqn).weight.detach(), spec, anatomy[fqn])  # type: ignore[operator]
        for fqn, spec in assignment.items()
    }
    with CompressedModel(model, anatomy, calibration).apply(assignment, variants), torch.no_grad():
        expected = forward(model, inputs)
    return (model, assignment, variants, calibration, inputs[:4]), expected


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.vnni
def test_int8_resnet_decides_as_in_pytorch(name: str, resnet: tuple[torch.nn.Module, Tensor], tmp_path: Path) -> None:
    args, expected = compressed(*resnet, [INT8])
    runtime = get_runtime(name)
    output = runtime.load(runtime.export(*args, tmp_path), threads=1).run(resnet[1])
    assert int((output.argmax(1) != expected.argmax(1)).sum()) <= 1  # an image that lies between two classes may flip
    assert float((output - expected).square().mean().sqrt()) < 0.02 * float(expected.square().mean().sqrt())


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_mixture_that_leaves_activations_alone_agrees_to_rounding(
    name: str, resnet: tuple[torch.nn.Module, Tensor], tmp_path: Path
) -> None:
    specs = [LayerSpec(weight_bits=3), LayerSpec(rank=0.5, weight_bits=6), LayerSpec(sparsity=0.5)]
    args, expected = compressed(*resnet, specs)
    runtime = get_runtime(name)
    output = runtime.load(runtime.export(*args, tmp_path), threads=1).run(resnet[1])
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)


def test_int8_resnet_runs_the_integer_kernels_that_the_card_says(
    resnet: tuple[torch.nn.Module, Tensor], tmp_path: Path
) -> None:
    args, _ = compressed(*resnet, [INT8])
    path = get_runtime("onnxruntime").export(*args, tmp_path)
    OnnxRuntimeSession(path, 1, tmp_path / "optimized.onnx")
    ran = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    # 9 of 19 convolutions have a quantizer behind them; the others feed a residual sum, or the head, in FP32
    assert ran.count("QLinearConv") == 9
    assert ran.count("Conv") + ran.count("FusedConv") == 10
    assert ran.count("QGemm") == 1
