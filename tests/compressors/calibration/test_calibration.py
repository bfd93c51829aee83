"""Ranges of activations from data."""

import json

import pytest
import torch
from torch import nn

from paredown.compressors import ActivationRange, Calibration, LayerSpec, calibrate, model_digest, trace_anatomy
from paredown.compressors.registry import _registry as registry
from paredown.errors import ConfigError, InputError
from paredown.testing._models import AWKWARD


def two_layers():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


def test_ranges_hold_what_enters_each_layer():
    model = two_layers()
    x = torch.rand(32, 4, generator=torch.Generator().manual_seed(0)) * 2 - 0.5
    calibration = calibrate(model, [x[:10], x[10:]], trace_anatomy(model, x))
    first, second = calibration.ranges["0"], calibration.ranges["2"]
    assert first.n == 32 * 4
    assert second.n == 32 * 6
    assert float(x.min()) <= first.low < 0.0 < first.high <= float(x.max())
    hidden = model[1](model[0](x)).detach()
    assert second.low == 0.0
    assert 0.0 < second.high <= float(hidden.max())


def test_the_split_into_batches_does_not_matter():
    model = two_layers()
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    anatomy = trace_anatomy(model, x)
    whole, halves = (calibrate(model, x.split(size), anatomy).ranges["0"] for size in (300, 7))
    assert whole == halves


def test_memory_is_bounded_and_the_sample_is_spread_evenly():
    from paredown.compressors.calibration import RangeWatcher

    watcher = RangeWatcher()
    for start in range(0, 200_000, 1000):
        watcher(nn.Identity(), (torch.arange(start, start + 1000.0),), {})
    assert watcher.n == 200_000
    assert watcher.sample.numel() <= 32768
    steps = watcher.sample.diff()
    assert (steps == watcher.stride).all()
    assert float(watcher.sample[-1]) >= 200_000 - watcher.stride


@pytest.mark.parametrize("name", ["transformer", "keyword_inputs", "shared_module", "out_of_order", "tied_weights"])
def test_calibrating_leaves_no_trace_and_skips_integer_inputs(name):
    model, inputs = AWKWARD[name]()
    model.train()
    anatomy, digest = trace_anatomy(model, inputs), model_digest(model)
    calibration = calibrate(model, [inputs], anatomy)
    expected = {layer.fqn for layer in anatomy.layers if layer.kind != "embedding"}
    assert set(calibration.ranges) == expected
    assert model.training
    assert model_digest(model) == digest
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_calibration_survives_json():
    calibration = Calibration(ranges={"a": ActivationRange(low=-0.1, high=0.3, n=7)})
    again = Calibration.from_dict(json.loads(json.dumps(calibration.to_dict())))
    assert again == calibration
    assert again.digest == calibration.digest
    assert Calibration(ranges={"a": ActivationRange(low=-0.1, high=0.31, n=7)}).digest != calibration.digest


def test_what_is_no_calibration_is_refused():
    with pytest.raises(ConfigError, match="schema_version 2 is expected, got None"):
        Calibration.from_dict({"ranges": {}})
    with pytest.raises(ConfigError, match="unknown key 'scales'"):
        Calibration.from_dict({"schema_version": 2, "scales": {}})
    with pytest.raises(ConfigError, match="the activation range of a must have low, high and n"):
        Calibration.from_dict({"schema_version": 2, "ranges": {"a": {"low": 0}}})
    with pytest.raises(ConfigError, match="must be finite and hold zero"):
        ActivationRange(low=0.5, high=1.0)
    with pytest.raises(ConfigError, match="must be finite and hold zero"):
        ActivationRange(low=float("-inf"), high=1.0)


def test_a_layer_that_was_not_calibrated_is_named():
    calibration = Calibration(ranges={})
    with pytest.raises(ConfigError, match=r"conv is to have 8-bit activations .* no such range"):
        calibration.qparams("conv", LayerSpec(activation_bits=8))


def test_no_batches_are_refused_and_nan_gives_no_range():
    model = two_layers()
    anatomy = trace_anatomy(model, torch.zeros(1, 4))
    with pytest.raises(InputError, match="at least one batch, got none"):
        calibrate(model, [], anatomy)
    calibration = calibrate(model, [torch.full((1, 4), float("nan"))], anatomy)
    assert calibration.ranges == {}
    assert set(calibration.missing.values()) == {"not finite"}
    with pytest.raises(ConfigError, match="0 is to have 8-bit activations, but its input holds NaN or infinity"):
        calibration.qparams("0", LayerSpec(activation_bits=8))
    assert not model[0]._forward_pre_hooks


def test_other_methods_have_their_own_ranges():
    model = two_layers()
    x = torch.randn(16, 4)
    with registry.ACTIVATION.temporarily("half", lambda sample, low, high, bits: (low / 2, high / 2)):
        calibration = calibrate(model, [x], trace_anatomy(model, x))
        spec = LayerSpec(activation_bits=8, activation_method="half")
        expected = ActivationRange(low=float(x.min()) / 2, high=float(x.max()) / 2)
        assert calibration.qparams("0", spec) == expected.qparams(8)
        assert Calibration.from_dict(calibration.to_dict()) == calibration
