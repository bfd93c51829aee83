"""Compressed weights inside recurrent layers and attentions leave PyTorch with their effective values."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from paredown.compressors import LayerSpec, applicable, compress, forward, preserved, trace_anatomy, weight_at
from paredown.evaluators.runtimes import get_runtime
from paredown.testing import AWKWARD

WAYS = (
    LayerSpec(weight_bits=4, group_size=8),
    LayerSpec(weight_bits=3, weight_format="palette"),
    LayerSpec(weight_bits=4, sparsity=0.5),
    LayerSpec(weight_bits=16, weight_format="fp16"),
)


@pytest.mark.parametrize(
    ("runtime", "name"),
    [
        *(("torch", name) for name in ("recurrent", "multihead", "encoder", "cross_attention")),
        ("onnxruntime", "recurrent"),
        ("onnxruntime", "encoder"),
        ("onnxruntime", "cross_attention"),
        ("openvino", "recurrent"),
        ("openvino", "multihead"),
    ],
)
def test_what_runs_is_what_was_searched(runtime: str, name: str, tmp_path: Path) -> None:
    model, inputs = AWKWARD[name]()
    anatomy = trace_anatomy(model, inputs)
    fused = [layer for layer in anatomy.layers if layer.is_fused]
    assignment = {
        layer.fqn: next(s for s in (WAYS[i % len(WAYS)], LayerSpec(weight_bits=4)) if applicable(s, layer) is None)
        for i, layer in enumerate(fused)
    }
    variants = {x.fqn: compress(weight_at(model, x.fqn), assignment[x.fqn], x) for x in fused}
    reference = copy.deepcopy(model)
    for fqn, variant in variants.items():
        weight_at(reference, fqn).data.copy_(variant.effective)
    with preserved(model), preserved(reference):
        before, expected = forward(model, inputs), forward(reference, inputs)
    path = get_runtime(runtime).export(model, assignment, variants, None, inputs, tmp_path)
    loaded = get_runtime(runtime).load(path, threads=1, model_factory=lambda: AWKWARD[name]()[0])
    outputs = loaded.run(inputs)
    assert float((expected - before).abs().max()) > 1e-2
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)
