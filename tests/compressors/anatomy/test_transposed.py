"""Transposed convolutions: counted, quantized by rows of input channels, stored, exported, and costed as FP32."""

import pytest
import torch
from torch import nn

from paredown.compressors import (
    CompressedModel,
    LayerSpec,
    applicable,
    calibrate,
    compress,
    load_model,
    save_model,
    stored_bytes,
    trace_anatomy,
)  # fmt: skip
from paredown.errors import SpecError
from paredown.evaluators import lowered_as
from paredown.hardware_profiles import load_profile
from paredown.testing import AWKWARD


def test_macs_by_hand():
    model = nn.Sequential(nn.ConvTranspose2d(3, 5, 4, stride=2), nn.ConvTranspose1d(11, 2, 3, groups=1)).eval()
    anatomy = trace_anatomy(model[:1], torch.randn(2, 3, 4, 6))
    (layer,) = anatomy.layers
    assert (layer.kind, layer.weight_shape, layer.groups) == ("conv_transpose2d", (3, 5, 4, 4), 1)
    assert layer.macs == 3 * 4 * 6 * 5 * 16  # each input number meets each output channel and tap once
    grouped = nn.ConvTranspose1d(6, 4, 3, groups=2)
    assert trace_anatomy(nn.Sequential(grouped), torch.randn(3, 6, 10)).layers[0].macs == 6 * 10 * 2 * 3


@pytest.mark.parametrize("spec", [
    LayerSpec(weight_bits=8, activation_bits=8),
    LayerSpec(weight_bits=4, weight_format="palette", scale_bits=16, activation_bits=8, activation_scheme="dynamic"),
    LayerSpec(weight_bits=3, sparsity=0.5),
], ids=lambda spec: spec.label())  # fmt: skip
def test_what_is_applied_is_what_is_stored(spec, tmp_path):
    model, x = AWKWARD["transposed"]()
    anatomy = trace_anatomy(model, x)
    assert [layer.kind for layer in anatomy.layers] == ["conv2d", "conv_transpose2d", "conv_transpose1d"]
    calibration = calibrate(model, [x], anatomy)
    resident = CompressedModel(model, anatomy, calibration)
    assignment = dict.fromkeys(anatomy.fqns, spec)
    variants = {x.fqn: compress(resident.weight(x.fqn), spec, x) for x in anatomy.layers}
    n_bytes = save_model(tmp_path / "m.safetensors", model, assignment, variants, calibration)
    assert n_bytes == stored_bytes(model, anatomy, assignment, variants)
    loaded, _ = AWKWARD["transposed"]()
    load_model(tmp_path / "m.safetensors", loaded)
    with torch.no_grad():
        before = model(x)
        with resident.apply(assignment, variants):
            assert torch.equal(model(x), loaded(x))
        assert not torch.equal(loaded(x), before)


def test_what_does_not_fit_is_said():
    model, x = AWKWARD["transposed"]()
    anatomy = trace_anatomy(model, x)
    layer = anatomy.layers[1]
    said = applicable(LayerSpec(weight_bits=4, weight_method="gptq"), layer)
    assert said == "'gptq' looks at the layer's inputs, which it cannot do for a transposed convolution"
    assert applicable(LayerSpec(weight_bits=4, weight_format="adaptive"), layer) is not None
    assert applicable(LayerSpec(rank=0.5), layer) == "low rank is for plain convolutions; this one is transposed"
    with pytest.raises(SpecError, match="w4:gptq does not apply to 2: 'gptq' looks at the layer's inputs"):
        compress(model[2].weight, LayerSpec(weight_bits=4, weight_method="gptq"), layer)
    moments = calibrate(model, [x], anatomy, moments=True).moments
    assert moments.names == ("0",)


@pytest.mark.parametrize("profile", ["x86-64-openvino", "x86-64-onnxruntime"])
def test_it_is_costed_as_floating_point(profile):
    model, x = AWKWARD["transposed"]()
    layer = trace_anatomy(model, x).layers[1]
    lowered = lowered_as(layer, LayerSpec(weight_bits=8, activation_bits=8), load_profile(profile))
    assert (lowered.weight_bits, lowered.activation_bits) == (32, 32)
