"""Ranges of activations by each rule, narrower widths, symmetric and dynamic ones: by hand, applied and stored."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from paredown.compressors import (
    ActivationRange,
    Calibration,
    CompressedModel,
    LayerSpec,
    calibrate,
    load_model,
    save_model,
    stored_bytes,
    trace_anatomy,
)  # fmt: skip
from paredown.compressors.quantization import (
    DynamicQuantizer,
    activation_entropy,
    activation_minmax,
    activation_percentile,
    dynamic_quantize,
)  # fmt: skip
from paredown.errors import ConfigError


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)).eval()


class TestRules:
    def test_by_hand(self):
        sample = torch.cat([torch.linspace(-1.0, 1.0, 40_000), torch.tensor([50.0, -9.0])])
        assert activation_minmax(sample, -9.0, 50.0, 8) == (-9.0, 50.0)
        low, high = activation_percentile(sample, -9.0, 50.0, 8)
        assert (low, high) == (pytest.approx(-1.0, abs=0.01), pytest.approx(1.0, abs=0.01))
        tails = torch.cat([normal(40_000), torch.tensor([25.0])])
        low, high = activation_entropy(tails, float(tails.min()), 25.0, 4)
        assert 1.5 < high < 8.0
        assert low >= float(tails.min())
        for rule in (activation_minmax, activation_percentile, activation_entropy):
            assert rule(torch.empty(0), -1.0, 2.0, 8) == (-1.0, 2.0)
            assert rule(torch.zeros(10), 0.0, 0.0, 8) == (0.0, 0.0)

    def test_symmetric_by_hand(self):
        scale, zero = ActivationRange(low=-1.0, high=3.81).qparams(8, symmetric=True)
        assert (scale, zero) == (pytest.approx(0.03), 128)
        assert ActivationRange(low=0.0, high=7.0).qparams(4, symmetric=True) == (1.0, 8)
        assert ActivationRange(low=0.0, high=0.0).qparams(8, symmetric=True) == (1.0, 128)

    def test_each_width_has_a_range_of_its_own(self):
        net, x = model(), normal(16, 3, 6, 6) ** 3
        anatomy = trace_anatomy(net, x)
        found = calibrate(net, [x], anatomy, bits=(4, 8))
        wide, narrow = found.others["affine"]["0"], found.others["affine@4"]["0"]
        assert narrow.high < wide.high  # four bits clip more
        spec = LayerSpec(activation_bits=4, activation_method="affine")
        assert found.qparams("0", spec) == narrow.qparams(4)
        assert found.qparams("0", LayerSpec(activation_bits=8)) == found.ranges["0"].qparams(8)
        assert found.qparams("0", LayerSpec(activation_bits=8, activation_method="minmax"))[0] == pytest.approx(
            float(x.max() - x.min()) / 255, rel=1e-5
        )
        with pytest.raises(ConfigError, match=r"6-bit activations by 'minmax'.*calibrate for that width and method"):
            found.qparams("0", LayerSpec(activation_bits=6))
        assert Calibration.from_dict(found.to_dict()).digest == found.digest


class TestDynamic:
    def test_by_hand(self):
        x = torch.tensor([[0.0, 3.0, 15.0], [-1.0, 0.4, 14.0]])
        assert dynamic_quantize(x, 4, by_sample=False).tolist() == [[0.0, 3.0, 15.0], [-1.0, 0.0, 14.0]]
        images = torch.stack([torch.full((2, 2), 15.0), torch.full((2, 2), 30.0)])
        images[:, 0, 0] = 7.4
        assert dynamic_quantize(images, 4, by_sample=True)[:, 0, 0].tolist() == [7.0, 8.0]
        assert dynamic_quantize(torch.zeros(2, 3), 8, by_sample=False).tolist() == [[0.0] * 3] * 2
        tokens = torch.tensor([3, 700])
        assert dynamic_quantize(tokens, 8, by_sample=False) is tokens
        assert repr(DynamicQuantizer(6)) == "DynamicQuantizer(bits=6)"

    @given(st.integers(1, 4), st.integers(1, 30), st.integers(0, 999), st.sampled_from([4, 6, 8]))
    def test_each_token_is_within_half_a_step_of_its_own(self, rows, columns, seed, bits):
        x = normal(rows, columns, seed=seed) * torch.logspace(-3, 3, rows)[:, None]
        found = dynamic_quantize(x, bits, by_sample=False)
        step = (x.amax(1).clamp(min=0) - x.amin(1).clamp(max=0)) / (2**bits - 1)
        assert bool(((found - x).abs() <= step[:, None] * 1.01).all())
        alone = torch.cat([dynamic_quantize(row[None], bits, by_sample=False) for row in x])
        assert torch.equal(found, alone)


@pytest.mark.parametrize("spec", [
    LayerSpec(weight_bits=8, activation_bits=8, activation_method="percentile"),
    LayerSpec(weight_bits=4, activation_bits=4, activation_method="entropy"),
    LayerSpec(activation_bits=6, activation_scheme="symmetric"),
    LayerSpec(weight_bits=4, weight_format="palette", activation_bits=8, activation_scheme="dynamic"),
    LayerSpec(activation_bits=4, activation_scheme="dynamic"),
], ids=lambda spec: spec.label())  # fmt: skip
def test_what_is_applied_is_what_is_stored(spec, tmp_path):
    from paredown.compressors import compress

    net, x = model(), normal(8, 3, 6, 6)
    anatomy = trace_anatomy(net, x)
    calibration = calibrate(net, [x], anatomy, bits=(4, 6, 8))
    assignment = dict.fromkeys(anatomy.fqns, spec)
    variants = {layer.fqn: compress(net.get_submodule(layer.fqn).weight, spec, layer) for layer in anatomy.layers}
    with torch.no_grad():
        plain = net(x)
        with CompressedModel(net, anatomy, calibration).apply(assignment, variants):
            applied = net(x)
        assert not torch.equal(applied, plain)
        written = save_model(tmp_path / "m.safetensors", net, assignment, variants, calibration)
        assert written == stored_bytes(net, anatomy, assignment, variants)
        again = model()
        assert load_model(tmp_path / "m.safetensors", again) == assignment
        assert torch.equal(again(x), applied)
        assert torch.equal(net(x), plain)
