"""Weight-only integers run from their codes, and give what PyTorch gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from paredown.compressors import CompressedModel, LayerSpec, compress, module_at, trace_anatomy
from paredown.evaluators.runtimes import NarrowRule, OnnxRuntime, OpenVinoRuntime, OpenVinoSession
from paredown.hardware_profiles import Blocks
from paredown.testing import AWKWARD

SPECS = [
    LayerSpec(weight_bits=4),
    LayerSpec(weight_bits=4, group_size=32),
    LayerSpec(weight_bits=3, group_size=64, weight_format="int_asym"),
    LayerSpec(weight_bits=4, group_size=48, weight_format="int_asym"),
    LayerSpec(weight_bits=8, group_size=16),
    LayerSpec(weight_bits=5, weight_format="int_asym"),
    LayerSpec(weight_bits=4, sparsity=0.5, weight_format="int_asym"),
    LayerSpec(weight_bits=4, group_size="tensor"),
]


class Rows(nn.Module):
    """A MatMul over three axes, and a Gemm with a bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, 24, bias=False)
        self.second = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.second(torch.tanh(self.first(x)).mean(dim=1))
        return output


def case(spec: LayerSpec, width: int) -> tuple[tuple[Any, ...], torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model, x = Rows(width).eval(), torch.randn(6, 3, width)
    anatomy = trace_anatomy(model, x)
    assignment = {"first": spec, "second": LayerSpec(weight_bits=4)}
    variants = {
        fqn: compress(module_at(model, fqn).weight.detach(), s, anatomy[fqn])  # type: ignore[operator]
        for fqn, s in assignment.items()
    }
    with CompressedModel(model, anatomy).apply(assignment, variants), torch.no_grad():
        expected = model(x)
    return (model, assignment, variants, None, x), x, expected


@pytest.mark.parametrize("spec", SPECS, ids=LayerSpec.label)
def test_codes_mean_the_effective_weight(spec: LayerSpec) -> None:
    (_, _, variants, _, _), _, _ = case(spec, 192)
    even = variants["first"].even_codes()
    spread = [part.float().repeat_interleave(even.group, dim=1)[:, :192] for part in (even.zero, even.scale)]
    assert torch.equal((even.codes.float() - spread[0]) * spread[1], variants["first"].effective)


@pytest.mark.parametrize(("spec", "width"), [(SPECS[1], 192), (SPECS[2], 100), (SPECS[3], 192), (SPECS[4], 100)])
def test_both_runtimes_agree_with_pytorch(spec: LayerSpec, width: int, tmp_path: Path) -> None:
    args, x, expected = case(spec, width)
    for runtime in (OnnxRuntime(narrow_from=0), OpenVinoRuntime(narrow_from=0)):
        output = runtime.load(runtime.export(*args, tmp_path / runtime.name), threads=1).run(x)
        torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)


def test_they_really_run_from_codes(tmp_path: Path) -> None:
    args, x, _ = case(LayerSpec(weight_bits=4, group_size=32), 192)
    graph = onnx.load(OnnxRuntime(narrow_from=0).export(*args, tmp_path / "a")).graph
    assert [node.op_type for node in graph.node].count("MatMulNBits") == 2
    small = onnx.load(OnnxRuntime().export(*args, tmp_path / "b")).graph
    assert "MatMulNBits" not in {node.op_type for node in small.node}  # FP32 is faster there
    path = OpenVinoRuntime(narrow_from=0).export(*args, tmp_path / "c")
    session = OpenVinoSession(path, 1)
    session.run(x)
    ran = [kernel["precision"] for kernel in session.kernels() if kernel["type"] == "FullyConnected"]
    assert "u4" in ran  # the other one has rows of 24 columns, no whole blocks
    plain = OpenVinoRuntime().export(args[0], {}, {}, None, x, tmp_path / "d")
    assert path.with_suffix(".bin").stat().st_size < 0.45 * plain.with_suffix(".bin").stat().st_size


def test_tied_weights_keep_the_embedding(tmp_path: Path) -> None:
    model, inputs = AWKWARD["tied_weights"]()
    anatomy = trace_anatomy(model, inputs)
    spec = LayerSpec(weight_bits=4)
    assignment = dict.fromkeys(("embed", "head"), spec)
    variants = {
        fqn: compress(module_at(model, fqn).weight.detach(), spec, anatomy[fqn])  # type: ignore[operator]
        for fqn in assignment
    }
    with CompressedModel(model, anatomy).apply(assignment, variants), torch.no_grad():
        expected = model(inputs)
    runtime = OnnxRuntime(narrow_from=0)
    output = runtime.load(runtime.export(model, assignment, variants, None, inputs, tmp_path), threads=1).run(inputs)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)


def test_what_is_no_even_grid_is_left_dense() -> None:
    weight = torch.randn(8, 32)
    anatomy = trace_anatomy(nn.Linear(32, 8), torch.randn(1, 32))
    rule = NarrowRule(bits=(4,), from_size=0, blocks=Blocks(columns=(16, 32)))
    for spec in (
        LayerSpec(weight_bits=4, weight_format="nf4"), LayerSpec(weight_bits=5), LayerSpec(sparsity=0.5),
        LayerSpec(weight_bits=4, group_size="4x16"),
    ):  # fmt: skip
        assert rule.of(compress(weight, spec, anatomy[""])) is None
    found = rule.of(compress(weight, LayerSpec(weight_bits=4), anatomy[""]))
    assert found is not None
    assert found.codes.shape == (8, 1, 16)
    assert found.codes.dtype == np.uint8
