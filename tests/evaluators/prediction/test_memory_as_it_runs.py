"""Liveness against the memory that a runtime's process really grows by."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from paredown.compressors import calibrate, trace_anatomy
from paredown.evaluators import peak_activations, trace_activations
from paredown.evaluators.latency import peak_memory
from paredown.evaluators.prediction import Template

SMALL, LARGE = 32, 288


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_first_run_takes_what_liveness_foretells(tmp_path: Path, runtime: str) -> None:
    """A chain of convolutions to 16 channels, with little that goes in and out. What 256 further samples take is
    activations alone: two neighbours are alive at once, 131 kB a sample.

    Less no runtime needs, but for pages that were there already: a tenth of 33 MB is far more than these. More is what
    comes in and goes out, which runtimes copy (4 kB a sample twice), and rounding. A third buffer, + 50 %, is not.
    """
    pytest.importorskip(runtime)
    pytest.importorskip("onnx")
    convolutions = [nn.Conv2d(1, 16, 3, padding=1), *(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))]
    model = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval().requires_grad_(False)
    x = torch.randn(2, 1, 32, 32)
    anatomy = trace_anatomy(model, x[:1])
    foretold = peak_activations(trace_activations(model, x, anatomy)).bytes
    assert foretold == 2 * 4 * 16 * 32 * 32
    path = tmp_path / "model.onnx"
    Template.trace(model, anatomy, calibrate(model, [x], anatomy), x).write({}, path, guarded=runtime == "onnxruntime")
    small, large = (
        peak_memory(path, runtime, torch.zeros(n, 1, 32, 32), runs=1).value for n in (SMALL, LARGE)
    )  # fmt: skip
    grown = (large - small) / (LARGE - SMALL)
    assert 0.9 <= grown / foretold <= 1.25
