"""Layers that run several times in a pass: a range for each call, wherever activations are rounded."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from paredown.compressors import (
    ActivationQuantizer,
    Anatomy,
    Calibration,
    CompressedModel,
    LayerSpec,
    VariantStore,
    calibrate,
    describe_file,
    forward,
    load_model,
    rounding_of,
    save_model,
    stored_bytes,
    trace_anatomy,
)
from paredown.compressors.calibration import collect_gradients
from paredown.errors import ParedownError

A8 = LayerSpec(weight_bits=8, activation_bits=8)


class Pyramid(nn.Module):
    """A head inside a tower; the tower runs on two levels whose values differ by a factor of 50."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.tower = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        level = self.stem(x).relu()
        return self.tower(level).mean((2, 3)) + self.tower(level * 50.0).mean((2, 3)) / 50.0


class Cell(nn.Module):
    """A cell that runs once for each step of its input (batch, steps, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(6, 3)
        self.last = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x[:, 0])
        for step in x.unbind(1):
            state = torch.tanh(self.cell(torch.cat([step, state], dim=1))) * 2.0
        return self.last(state)


class Failing(nn.Module):
    """A layer that runs twice; the pass fails between its calls where `fails` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.fails = False

    def forward(self, x: Tensor) -> Tensor:
        once = self.layer(x)
        if self.fails:
            raise ValueError("as it was told")
        return self.layer(once * 100.0) / 100.0


def _prepared(model: nn.Module, inputs: Tensor, *more: Tensor, **asked: bool) -> tuple[Anatomy, Calibration]:
    anatomy = trace_anatomy(model, inputs)
    return anatomy, calibrate(model, [inputs, *more], anatomy, **asked)


def _inputs_of(model: nn.Module, fqn: str, inputs: Tensor) -> list[Tensor]:
    seen: list[Tensor] = []
    with torch.no_grad():
        handle = model.get_submodule(fqn).register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
        forward(model, inputs)
        handle.remove()
    return seen


def test_each_call_has_the_range_of_its_own_values():
    torch.manual_seed(0)
    model, x = Pyramid().eval(), torch.rand(8, 1, 6, 6)
    _, calibration = _prepared(model, x)
    for fqn in ("tower.0", "tower.2"):
        for call, seen in zip(calibration.calls["minmax"][fqn], _inputs_of(model, fqn, x), strict=True):
            assert (call.low, call.high) == (min(0.0, float(seen.min())), max(0.0, float(seen.max())))
        assert calibration.ranges[fqn].high == max(call.high for call in calibration.calls["minmax"][fqn])
    assert "stem" not in calibration.calls["minmax"]
    assert set(calibration.calls) == {"minmax", *calibration.others}


def test_the_ranges_of_calls_survive_json_and_are_part_of_the_digest():
    _, calibration = _prepared(Pyramid().eval(), torch.rand(4, 1, 6, 6))
    assert Calibration.from_dict(calibration.to_dict()) == calibration
    old = {key: value for key, value in calibration.to_dict().items() if key != "calls"}
    one_range = Calibration.from_dict(old)
    assert one_range.digest != calibration.digest
    assert rounding_of(one_range, "tower.0", A8).calls == ()
    assert len(rounding_of(calibration, "tower.0", A8).calls) == 2


def _rounded_by_hand(model: Pyramid, calibration: Calibration, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """Ten lines of plain PyTorch: every input rounded to the grid of its own minimum and maximum."""

    def rounded(value: Tensor, fqn: str, call: int) -> Tensor:
        seen = calibration.calls["minmax"][fqn][call] if fqn != "stem" else calibration.ranges[fqn]
        scale = torch.tensor((seen.high - seen.low) / 255, dtype=torch.float32)
        zero = round(-seen.low / float(scale))
        return (torch.round(value / scale).clamp(-zero, 255 - zero)) * scale

    conv = nn.functional.conv2d
    level = conv(rounded(x, "stem", 0), weights["stem"], model.stem.bias, padding=1).relu()
    found = torch.zeros(len(x), 3)
    for call, factor in enumerate((1.0, 50.0)):
        y = conv(rounded(level * factor, "tower.0", call), weights["tower.0"], model.tower[0].bias, padding=1).relu()
        found = found + conv(rounded(y, "tower.2", call), weights["tower.2"], model.tower[2].bias).mean((2, 3)) / factor
    return found


@pytest.mark.parametrize("scope", ["layer", "tensor"])
def test_the_resident_model_and_the_stored_one_round_each_call_by_itself(tmp_path, scope):
    torch.manual_seed(1)
    model, x = Pyramid().eval(), torch.rand(8, 1, 6, 6)
    anatomy, calibration = _prepared(model, x, tensors=True)
    has_place = set(calibration.places)
    spec = {
        fqn: LayerSpec(weight_bits=8, activation_bits=8, activation_scope=scope if fqn in has_place else "layer")
        for fqn in anatomy.fqns
    }
    assert not has_place & {"tower.0", "tower.2"}
    store = VariantStore(tmp_path / "store")
    variants = {x.fqn: store.get(model.get_submodule(x.fqn).weight, spec[x.fqn].weight_only, x) for x in anatomy.layers}
    weights = {fqn: variant.effective for fqn, variant in variants.items()}
    with CompressedModel(model, anatomy, calibration).apply(spec, variants), torch.no_grad():
        found = [model(x) for _ in range(2)]
    if scope == "layer":
        with torch.no_grad():
            torch.testing.assert_close(found[0], _rounded_by_hand(model, calibration, weights, x))
    assert torch.equal(*found)
    n_bytes = save_model(tmp_path / "m.safetensors", model, spec, variants, calibration)
    assert n_bytes == stored_bytes(model, anatomy, spec, variants) == (tmp_path / "m.safetensors").stat().st_size
    loaded = Pyramid().eval()
    load_model(tmp_path / "m.safetensors", loaded)
    with torch.no_grad():
        assert torch.equal(loaded(x), found[0])
        assert torch.equal(copy.deepcopy(loaded)(x), found[0])
    described = describe_file(tmp_path / "m.safetensors")
    assert described["schema_version"] == 3
    told = described["layers"]["tower.0"]
    assert [(one["scale"], one["zero_point"]) for one in told["activation_calls"]] == [
        pytest.approx(params) for params in calibration.call_qparams("tower.0", A8)
    ]
    assert "activation_calls" not in described["layers"]["stem"]


def test_a_file_without_such_layers_keeps_its_schema(tmp_path):
    model = nn.Sequential(nn.Linear(4, 3))
    _, calibration = _prepared(model, torch.rand(4, 4))
    save_model(tmp_path / "m.safetensors", model, {"0": LayerSpec(activation_bits=8)}, {}, calibration)
    assert describe_file(tmp_path / "m.safetensors")["schema_version"] == 2


def test_further_calls_have_the_union_of_all():
    torch.manual_seed(2)
    model, three, five = Cell().eval(), torch.randn(8, 3, 3), torch.randn(8, 5, 3)
    anatomy, calibration = _prepared(model, three, five * 3)
    calls, union = calibration.calls["minmax"]["cell"], calibration.ranges["cell"]
    assert len(calls) == anatomy["cell"].n_calls == 3
    steps = [
        torch.cat(pair) for pair in zip(*(_inputs_of(model, "cell", x)[:3] for x in (three, five * 3)), strict=True)
    ]
    assert [(c.low, c.high) for c in calls] == [(float(x.min()), float(x.max())) for x in steps]
    spec = {"cell": LayerSpec(activation_bits=8)}
    with CompressedModel(model, anatomy, calibration).apply(spec, {}):
        hooks = list(model.cell._forward_pre_hooks.values())
        assert repr(hooks[0].further) == repr(ActivationQuantizer(*union.qparams(8), 8))
        longer = _inputs_of(model, "cell", five)
    plain = _inputs_of(model, "cell", five)
    grids = [*(c.qparams(8) for c in calls), *[union.qparams(8)] * 2]
    first = ActivationQuantizer(*grids[0], 8)(model.cell, (plain[0],), {})[0][0]
    assert torch.equal(longer[0], first)
    for x, (scale, _) in zip(longer, grids, strict=True):
        assert float((x / scale - (x / scale).round()).abs().max()) < 1e-3


def test_a_call_that_some_batch_leaves_out_has_the_union():
    torch.manual_seed(3)
    model, five, three = Cell().eval(), torch.randn(8, 5, 3), torch.randn(8, 3, 3) * 4
    _, calibration = _prepared(model, five, three)
    calls, union = calibration.calls["minmax"]["cell"], calibration.ranges["cell"]
    assert len(calls) == 5
    assert calls[3] == calls[4] == union
    assert calls[0] != union


@pytest.mark.parametrize(("steps", "own"), [(16, 16), (17, 0)])
def test_more_calls_than_sixteen_share_one_range(steps, own):
    model = Cell().eval()
    anatomy, calibration = _prepared(model, torch.randn(2, steps, 3))
    assert anatomy["cell"].n_ranges == own
    assert len(rounding_of(calibration, "cell", A8).calls) == own


def test_a_failed_pass_leaves_the_next_one_alone():
    torch.manual_seed(4)
    model, x = Failing().eval(), torch.randn(16, 4)
    anatomy, calibration = _prepared(model, x)
    with (
        CompressedModel(model, anatomy, calibration).apply({"layer": LayerSpec(activation_bits=8)}, {}),
        torch.no_grad(),
    ):
        expected = model(x)
        model.fails = True
        with pytest.raises(ValueError, match="as it was told"):
            model(x)
        model.fails = False
        assert torch.equal(model(x), expected)


def test_moments_and_gradients_are_sums_over_all_calls():
    torch.manual_seed(5)
    model, x = Pyramid().eval(), torch.rand(8, 1, 6, 6)
    anatomy, calibration = _prepared(model, x, moments=True)
    rows = torch.cat([one.permute(0, 2, 3, 1).reshape(-1, 4) for one in _inputs_of(model, "tower.2", x)]).double()
    found = calibration.moments.get("tower.2")
    torch.testing.assert_close(found.second[0].double(), rows.T @ rows / len(rows), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(calibration.moments.mean("tower.2")[0].double(), rows.mean(0), rtol=1e-4, atol=1e-5)

    def loss(outputs: Tensor, inputs: object, targets: object) -> Tensor:
        return outputs.square().sum()

    gradients = collect_gradients(model, [(x[:1], None, 1)], anatomy, loss)
    (own,) = torch.autograd.grad(model(x[:1]).square().sum(), [model.tower[2].weight])
    torch.testing.assert_close(gradients.get("tower.2").both[0], own.reshape(3, 4))


class Fused(nn.Module):
    """An attention and an LSTM that both run twice."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for factor in (1.0, 3.0):
            x = self.attention(x * factor, x, x, need_weights=False)[0]
            x = self.lstm(x)[0]
        return self.last(x)


def test_fused_layers_that_run_twice_have_no_ranges_and_the_moments_of_both_calls():
    torch.manual_seed(6)
    model, x = Fused().eval(), torch.randn(4, 5, 4)
    anatomy, calibration = _prepared(model, x, moments=True)
    assert anatomy["lstm.weight_ih_l0"].n_calls == 2
    assert set(calibration.ranges) == {"last"}
    assert not any(calibration.calls.values())
    rows = torch.cat(_inputs_of(model, "lstm", x)).reshape(-1, 4).double()
    second = calibration.moments.get("lstm.weight_ih_l0").second[0].double()
    torch.testing.assert_close(second, rows.T @ rows / len(rows), rtol=1e-4, atol=1e-5)


def test_an_error_in_the_ranges_of_calls_names_the_layer():
    _, calibration = _prepared(Pyramid().eval(), torch.rand(4, 1, 6, 6))
    data = calibration.to_dict()
    data["calls"]["minmax"]["tower.0"][1] = {"low": 0.0}
    with pytest.raises(ParedownError, match=r"tower\.0"):
        Calibration.from_dict(data)
