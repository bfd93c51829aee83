"""Formats that no kernel takes, narrow and dynamic activations: each runtime computes what PyTorch computes."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import pytest
import torch

from paredown.compressors import (
    CompressedModel,
    LayerSpec,
    applicable,
    calibrate,
    compress,
    forward,
    module_at,
    trace_anatomy,
)
from paredown.evaluators.runtimes import get_runtime, lower
from paredown.testing import AWKWARD

SPECS = (
    LayerSpec(weight_bits=4, weight_format="palette", activation_bits=8),
    LayerSpec(weight_bits=4, activation_bits=4),
    LayerSpec(weight_bits=8, activation_bits=8, activation_scheme="symmetric"),
    LayerSpec(weight_bits=8, activation_bits=8, activation_scheme="dynamic"),
    LayerSpec(weight_bits=4, group_size=8, weight_method="gptq", scale_bits=16),
    LayerSpec(weight_bits=16, weight_format="bf16", activation_bits=6),
    LayerSpec(weight_bits=3, weight_format="int_asym"),
)


@pytest.mark.parametrize("name", ["convolutions", "transformer"])
@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
@pytest.mark.vnni
def test_a_runtime_computes_what_pytorch_does(runtime: str, name: str, tmp_path: Path) -> None:
    model, inputs = AWKWARD[name]()
    anatomy = trace_anatomy(model, inputs)
    calibration = calibrate(model, [inputs], anatomy, bits=(4, 6, 8), moments=True)
    assignment = {}
    for spec, layer in zip(cycle(SPECS), anatomy.layers, strict=False):
        spec = spec.weight_only if layer.kind == "embedding" else spec
        assignment[layer.fqn] = LayerSpec() if applicable(spec, layer) else spec
    assert calibration.moments is not None
    variants = {
        layer.fqn: compress(
            module_at(model, layer.fqn).weight.detach(),  # type: ignore[operator]
            assignment[layer.fqn],
            layer,
            moments=calibration.moments.get(layer.fqn),
        )
        for layer in anatomy.layers
    }
    with torch.no_grad():
        plain = forward(model, inputs)
        with CompressedModel(model, anatomy, calibration).apply(assignment, variants):
            expected = forward(model, inputs)
    found = get_runtime(runtime)
    if (missing := found.available()) is not None:
        pytest.skip(missing)
    path = found.export(model, assignment, variants, calibration, inputs, tmp_path)
    output = found.load(path, threads=1, model_factory=lambda: AWKWARD[name]()[0]).run(inputs)
    # a value between two codes may fall on either side
    error, effect = ((one - expected).square().mean().sqrt() for one in (output, plain))
    assert float(error) <= 0.1 * float(effect)


def test_only_plain_integers_with_a_calibrated_range_are_int8() -> None:
    model, inputs = AWKWARD["mlp"]()
    anatomy = trace_anatomy(model, inputs)
    calibration = calibrate(model, [inputs], anatomy, bits=(4, 8))
    layer = anatomy.layers[0]
    weight = module_at(model, layer.fqn).weight.detach()  # type: ignore[operator]

    def lowered(**spec: object) -> object:
        made = LayerSpec.from_dict({"weight_bits": 4, **spec})
        (one,) = lower({layer.fqn: made}, {layer.fqn: compress(weight, made, layer)}, calibration)
        return one.is_int8, one.activation_bits, one.dynamic

    assert lowered(activation_bits=8) == (True, 8, False)
    assert lowered(activation_bits=4) == (True, 4, False)
    assert lowered(activation_bits=8, group_size="tensor") == (True, 8, False)
    assert lowered(activation_bits=8, weight_format="nf4") == (False, 8, False)
    assert lowered(activation_bits=8, activation_scheme="dynamic") == (False, 8, True)
    assert lowered() == (False, 8, False)
