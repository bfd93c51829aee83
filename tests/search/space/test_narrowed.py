"""Missing statistics narrow the levels of their layer alone, and uniform settings survive."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from paredown.compressors import LayerSpec, calibrate, trace_anatomy
from paredown.errors import ConfigError
from paredown.search import Task
from paredown.search.space import build_space, check_statistics, narrowed, uniform_settings, weights_of


class Odd(nn.Module):
    """One layer that runs for positive inputs only, one behind a logarithm of 0, and one that reads a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.sometimes, self.infinite, self.constant, self.plain = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.plain(x) + self.constant(torch.ones_like(x))
        y = y + torch.nan_to_num(self.infinite(torch.log(x.clamp(min=0.0))), nan=0.0, posinf=0.0, neginf=0.0)
        return y + self.sometimes(x) if bool((x > 0.0).all()) else y


@pytest.fixture
def parts():
    torch.manual_seed(0)
    model = Odd().eval().requires_grad_(False)
    anatomy = trace_anatomy(model, torch.rand(4, 4) + 0.1)
    batches = [torch.randn(32, 4).index_fill(1, torch.tensor([0]), 0.0)]
    calibration = calibrate(model, batches, anatomy, moments=True)
    space = {"weight_bits": [3, 8, 32], "activation_bits": [8, 32], "weight_method": ["gptq", "affine"]}
    return (
        model,
        anatomy,
        calibration,
        build_space(Task.from_dict({"data": {"factory": "a:b"}, "space": space}), anatomy),
    )


def test_only_the_levels_of_these_layers_change(parts) -> None:
    model, anatomy, calibration, space = parts
    assert calibration.missing == {"sometimes": "never ran", "infinite": "not finite", "constant": "constant"}
    found, notes = narrowed(space, anatomy, calibration, weights_of(model))
    levels = {group.name: group.levels for group in found.groups}
    whole = {group.name: group.levels for group in space.groups}
    assert levels["plain"] == whole["plain"]
    for name in ("sometimes", "infinite"):
        assert {spec.label() for spec in levels[name]} == {"fp32", "w8", "w3"}
    assert {spec.label() for spec in levels["constant"]} == {"fp32", "w8", "w8:gptq", "w3", "w3:gptq"}
    assert len(notes) == 3
    assert all(name in " ".join(notes) for name in calibration.missing)


def test_uniform_settings_take_the_weights_alone(parts) -> None:
    model, anatomy, calibration, space = parts
    found, _ = narrowed(space, anatomy, calibration, weights_of(model))
    chosen = {label: found.assignment(candidate) for label, candidate in uniform_settings(found)}
    assert chosen["w8:gptq a8"]["plain"].label() == "w8:gptq a8"
    assert chosen["w8:gptq a8"]["infinite"].label() == "w8"


def test_a_config_that_asks_for_the_impossible(parts) -> None:
    _, anatomy, calibration, _ = parts
    for name in calibration.missing:
        check_statistics({name: LayerSpec(weight_bits=4)}, anatomy, calibration)
        with pytest.raises(ConfigError, match=f"layer {name} cannot be w8 a8.*leave the layer out"):
            check_statistics({name: LayerSpec(weight_bits=8, activation_bits=8)}, anatomy, calibration)
    with pytest.raises(ConfigError, match=r"sometimes cannot be w4:gptq.*moments"):
        check_statistics({"sometimes": LayerSpec(weight_bits=4, weight_method="gptq")}, anatomy, calibration)


def test_a_weight_that_is_not_finite_is_left_alone(parts) -> None:
    model, anatomy, calibration, space = parts
    model.plain.weight.data[0, 0] = float("nan")
    found, notes = narrowed(space, anatomy, calibration, weights_of(model))
    assert "plain" not in {group.name for group in found.groups}
    assert any("NaN or infinity: plain" in note for note in notes)
