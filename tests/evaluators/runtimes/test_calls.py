"""Layers that run several times in a pass: every format rounds each call as the trial did, or refuses by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from paredown.compressors import (
    Calibration,
    CompressedModel,
    LayerSpec,
    Variant,
    calibrate,
    compress,
    forward,
    trace_anatomy,
    weight_at,
)
from paredown.evaluators import Split
from paredown.evaluators.runtimes import ExportError, export_model, get_runtime
from paredown.evaluators.sensitivity import PrefixCache, fisher_table

INT8 = LayerSpec(weight_bits=8, activation_bits=8)


class Heads(nn.Module):
    """Convolutions and linear layers with biases, run on levels whose values differ by a factor of 100; one head is
    below another module that runs twice too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.tower = nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 16, 12), nn.ReLU(), nn.Linear(12, 5))

    def forward(self, x: Tensor) -> Tensor:
        level = self.stem(x).relu()
        return self.head(self.tower(level)) + self.head(self.tower(level * 100.0)) / 100.0


class Steps(nn.Module):
    """A transformer's feed-forward part over (batch, tokens, channels), run three times with growing values."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = x + 4.0 * self.down(torch.relu(self.up(x)))
        return x.mean(1)


class Counted(Steps):
    """A forward that only a trace of the bytecode sees through."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(len(x), -1, 8))


class Case:
    def __init__(self, model: nn.Module, inputs: Tensor, spec: LayerSpec = INT8) -> None:
        torch.manual_seed(0)
        self.model, self.inputs = model.eval(), inputs
        self.anatomy = trace_anatomy(self.model, inputs)
        self.calibration = calibrate(self.model, [inputs], self.anatomy, bits=(spec.activation_bits,))
        self.assignment = dict.fromkeys(self.anatomy.fqns, spec)
        self.variants: dict[str, Variant] = {
            x.fqn: compress(weight_at(model, x.fqn).detach(), spec, x) for x in self.anatomy.layers
        }
        self.expected = self.run(self.calibration)

    def run(self, calibration: Calibration) -> Tensor:
        resident = CompressedModel(self.model, self.anatomy, calibration)
        with resident.apply(self.assignment, self.variants), torch.no_grad():
            return forward(self.model, self.inputs)

    @property
    def with_one_range(self) -> Tensor:
        return self.run(Calibration(ranges=self.calibration.ranges, others=self.calibration.others))

    def exported(self, format: str, out: Path) -> Tensor:
        given: tuple[Any, ...] = (self.model, self.assignment, self.variants, self.calibration, self.inputs)
        path = export_model(format, *given, out)
        runtime = {"onnx": "onnxruntime", "tensorrt-onnx": "onnxruntime", "openvino": "openvino"}.get(format, "torch")
        session = get_runtime(runtime).load(path, threads=1, model_factory=type(self.model))
        return session.run(self.inputs)


def _distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


MODELS = {
    "heads": lambda: (Heads(), torch.rand(16, 1, 4, 4)),
    "steps": lambda: (Steps(), torch.randn(16, 6, 8)),
    "counted": lambda: (Counted(), torch.randn(16, 6, 8)),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("format", ["paredown", "pt2", "onnx", "openvino"])
def test_an_export_rounds_each_call_as_the_trial(tmp_path: Path, format: str, name: str) -> None:
    torch.manual_seed(1)
    case = Case(*MODELS[name]())
    apart = _distance(case.exported(format, tmp_path), case.expected)
    assert apart < 0.2 * _distance(case.with_one_range, case.expected)
    assert apart < (1e-5 if format in ("paredown", "pt2") else 0.03)


@pytest.mark.parametrize("bits", [4, 8])
def test_the_signed_quantizers_of_tensorrt_are_of_each_call(tmp_path: Path, bits: int) -> None:
    torch.manual_seed(2)
    spec = LayerSpec(weight_bits=8, activation_bits=bits, activation_scheme="symmetric")
    case = Case(*MODELS["heads"](), spec)
    assert _distance(case.exported("tensorrt-onnx", tmp_path), case.expected) < 1e-3
    assert _distance(case.with_one_range, case.expected) > 1e-2


@pytest.mark.parametrize("bits", [4, 6])
def test_narrow_activations_and_weights_left_alone_are_rounded_by_call_in_onnx(tmp_path: Path, bits: int) -> None:
    torch.manual_seed(3)
    case = Case(*MODELS["steps"](), LayerSpec(activation_bits=bits))
    assert _distance(case.exported("onnx", tmp_path), case.expected) < 0.3 * _distance(
        case.with_one_range, case.expected
    )


def test_biases_in_onnx_are_in_the_steps_of_their_own_call(tmp_path: Path) -> None:
    """Integer kernels take a bias in units of input step times weight step, which differ from call to call."""
    import onnx
    from onnx import numpy_helper

    torch.manual_seed(4)
    case = Case(*MODELS["heads"]())
    case.exported("onnx", tmp_path)
    graph = onnx.load(tmp_path / "model.onnx").graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    gemms = [node for node in graph.node if node.op_type == "Gemm"]
    assert len(gemms) == 4
    steps = set()
    for gemm in gemms:
        given, weight, bias = (stored[made_by[name].input[1]] for name in gemm.input)
        np.testing.assert_allclose(bias, given * weight, rtol=1e-6)
        steps.add(float(given))
    assert len(steps) == 4


def test_one_stored_range_for_several_calls_is_refused_by_name(tmp_path: Path) -> None:
    case = Case(*MODELS["steps"]())
    with pytest.raises(ExportError, match=r"^up is .* runs 3 times in a pass.*activation_scheme 'dynamic'"):
        case.exported("compressed-tensors", tmp_path)


def test_calls_with_equal_ranges_fit_into_one(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + self.layer(x.flip(1)).relu()

    case = Case(Twice(), torch.randn(8, 8))
    torch.testing.assert_close(case.exported("compressed-tensors", tmp_path), case.expected)


class Twice(nn.Module):
    """A shared layer below a part that can be answered from memory, then again behind the layer that changes."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(6, 6)
        self.first = nn.Sequential(self.shared, nn.ReLU())
        self.middle, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(self.shared(50.0 * self.middle(x))) / 50.0


def test_a_replay_counts_the_calls_that_it_leaves_out() -> None:
    torch.manual_seed(5)
    model, x = Twice().eval(), torch.randn(8, 6)
    anatomy = trace_anatomy(model, x)
    calibration = calibrate(model, [x], anatomy)
    base = dict.fromkeys(anatomy.fqns, LayerSpec(activation_bits=8))
    with CompressedModel(model, anatomy, calibration).apply(base, {}), torch.no_grad():
        whole = model(x)
        cache = PrefixCache.record(model, x, anatomy)
        assert {cache.timeline.calls[i].module for i in cache.prefix(["middle"]).answered} == {model.first}
        for fqn in ("middle", "last", "shared"):
            with cache.before([fqn]):
                assert torch.equal(model(x), whole)
        assert torch.equal(model(x), whole)


def test_the_estimate_from_gradients_rounds_each_call_by_itself() -> None:
    torch.manual_seed(6)
    case = Case(Steps(), torch.randn(16, 6, 8), LayerSpec(activation_bits=8))
    groups = [(["up"], [LayerSpec(activation_bits=8)])]

    def estimate(calibration: Calibration) -> float:
        table = fisher_table(
            case.model, Split("search", case.inputs), groups, lambda fqn, spec: case.variants[fqn],
            calibration=calibration, divergence="mse", seed=1,
        )  # fmt: skip
        return table.values[0][0]

    one_range = Calibration(ranges=case.calibration.ranges)
    assert 0.0 < estimate(case.calibration) < 0.5 * estimate(one_range)
