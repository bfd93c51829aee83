"""Forms of low rank as chains of convolutions: every runtime computes what the effective weight computes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from paredown.compressors import CompressedModel, LayerSpec, applicable, compress, forward, trace_anatomy
from paredown.evaluators.runtimes import FORMS, fake_quantize, get_runtime, lower, prepare

CONVOLUTIONS: list[dict[str, Any]] = [
    {"padding": 1},
    {"padding": 1, "stride": 2},
    {"padding": "same", "dilation": 2},
    {"padding": 2, "padding_mode": "reflect"},
    {"stride": (2, 1), "padding": (0, 1), "bias": False},
]


class PadsItself(nn.Conv2d):
    """Padding that only its own `forward` knows of."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, [0, 1, 0, 1]))


def lowered(model: nn.Module, x: Tensor, form: str, rank: float = 0.25) -> tuple[nn.Module, Tensor, Any, Any]:
    anatomy = trace_anatomy(model, x)
    spec = LayerSpec(rank=rank, rank_form=form)
    assignment = {layer.fqn: spec for layer in anatomy.layers if applicable(spec, layer) is None}
    assert assignment
    weights = {fqn: model.get_submodule(fqn).weight for fqn in assignment}
    variants = {fqn: compress(weights[fqn], spec, anatomy[fqn]) for fqn in assignment}  # type: ignore[arg-type]
    with torch.no_grad(), CompressedModel(model, anatomy).apply(assignment, variants):
        expected = forward(model, x)
    return prepare(model, lower(assignment, variants, None), fake_quantize), expected, assignment, variants


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_a_chain_computes_what_its_product_does(form: str, options: dict[str, Any]) -> None:
    x = torch.randn(2, 8, 11, 9, generator=torch.Generator().manual_seed(0))
    for kind in (nn.Conv2d, PadsItself):
        model = nn.Sequential(kind(8, 12, 3, **options)).eval()
        ready, expected, _, _ = lowered(model, x, form)
        assert torch.allclose(ready(x), expected, atol=1e-5)
        assert "part0" not in dict(model[0].named_parameters())  # the model itself is left alone


@pytest.mark.parametrize("form", ["input", "tucker2"])
def test_a_line_too(form: str) -> None:
    x = torch.randn(2, 8, 20, generator=torch.Generator().manual_seed(0))
    ready, expected, _, _ = lowered(nn.Sequential(nn.Conv1d(8, 12, 5, stride=2, padding=2)).eval(), x, form)
    assert torch.allclose(ready(x), expected, atol=1e-5)


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
@pytest.mark.parametrize("form", FORMS)
def test_a_runtime_runs_the_parts(runtime: str, form: str, tmp_path: Path) -> None:
    found = get_runtime(runtime)
    if (reason := found.available()) is not None:
        pytest.skip(str(reason))
    x = torch.randn(2, 8, 10, 10, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3, stride=2)).eval()
    _, expected, assignment, variants = lowered(model, x, form)
    path = found.export(model, assignment, variants, None, x, tmp_path)
    output = found.load(path, threads=1, model_factory=lambda: copy.deepcopy(model)).run(x)
    assert torch.allclose(torch.as_tensor(output), expected, atol=1e-4)
    if path.suffix == ".onnx":
        import onnx

        graph = onnx.load(str(path)).graph
        n = {"input": 2, "spatial": 2, "tucker2": 3}[form] * len(assignment)
        assert sum(node.op_type == "Conv" for node in graph.node) == n
