"""The benchmark of quantization: its settings, its goals by hand, and a small run of one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from paredown.compressors import LayerInfo, LayerSpec, applicable, methods


def rows(**lost: float) -> dict[str, Any]:
    """Rows of the table, all losing a hundredth at 100 bytes but for those that are named. On the search part they lose
    what they lose on the report part."""
    from quantbench.measure import REFERENCE
    from quantbench.settings import settings

    found = {name: _row(0.01) for name in (*settings(), *settings(64), REFERENCE)}
    return found | {name.replace("_", " "): _row(loss) for name, loss in lost.items()}


def _row(lost: float) -> dict[str, float]:
    return {"gain": -lost, "bytes": 100, "search_divergence": lost}


def kept(data: dict[str, Any], model: str = "resnet20") -> dict[str, bool]:
    from quantbench.goals import goals

    return {goal["goal"]: goal["kept"] for goal in goals({model: data})}


def test_every_setting_is_one_that_there_is() -> None:
    from quantbench.bench import fitted
    from quantbench.settings import settings

    found = {**settings(), **settings(64)}
    assert {spec.weight_method for spec in found.values()} == set(methods("weight"))
    assert len(set(found.values())) == len(found)
    for layer in (
        LayerInfo(fqn="short", kind="conv2d", weight_shape=(8, 1, 3, 3), groups=8),
        LayerInfo(fqn="long", kind="linear", weight_shape=(16, 172)),
        LayerInfo(fqn="embed", kind="embedding", weight_shape=(512, 64)),
    ):
        assert all(applicable(fitted(spec, layer), layer) is None for spec in found.values())


def test_goals_of_accuracy_by_hand() -> None:
    data = {"metric": "accuracy", "rivals": {}, "settings": rows(W4_affine=0.02, W4_gptq=0.009)}
    data["settings"]["W4 round to nearest"]["gain"] = -0.03
    for name in data["settings"]:
        if name.startswith("W4 ") and name not in ("W4 affine", "W4 gptq", "W4 round to nearest"):
            data["settings"][name] |= {"gain": 0.05, "search_divergence": 0.05}  # lucky on the report part
    assert kept(data)["W4 within 1.0 point with the best method"]
    assert kept(data)["W4: half of round to nearest's loss recovered"]
    data["settings"]["W4 gptq"]["gain"] = -0.0101  # of 2.0 points, the better of the two ways to round
    assert not kept(data)["W4 within 1.0 point with the best method"]
    assert not kept(data)["W4: half of round to nearest's loss recovered"]
    assert not kept(data)["W8A8 within 0.3 points"]
    assert "W4 within 1.0 point with the best method" not in kept(data, "kwt1")


def test_a_rival_must_not_be_better() -> None:
    data = {"metric": "accuracy", "rivals": {"NNCF W8A8": {"gain": -0.004}}, "settings": rows(W8A8=0.002)}
    assert kept(data)["W8A8 not below NNCF W8A8"]
    data["rivals"] = {"NNCF W8A8": {"gain": -0.001}, "ONNX Runtime static W8A8": {"skipped": "not here"}}
    assert not kept(data)["W8A8 not below NNCF W8A8"]
    assert "W8A8 not below ONNX Runtime static W8A8" not in kept(data)


def test_mixed_precision_must_lead_beyond_noise_on_three_models() -> None:
    from quantbench.goals import mixed_goals

    apart = {"gain": 0.1, "low": 0.05, "high": 0.2, "value": 0.1, "uniform_value": 0.2}
    one = {"gain": 0.01, "low": 0.002, "high": 0.02, "uniform": "gptq", "bytes": 99, "uniform_bytes": 100}
    one |= {"value": 0.9, "uniform_value": 0.89, "metric": "accuracy", "divergence": apart}
    models: dict[str, Any] = {name: {"W4": dict(one)} for name in ("resnet20", "dscnn", "kwt1")}
    assert all(goal["kept"] for goal in mixed_goals(models))
    models["kwt1"]["W4"]["low"] = -0.001  # however far ahead the divergence is
    models["kwt1"]["W3"] = dict(one)
    *single, four, three = mixed_goals(models)
    assert [goal["kept"] for goal in single] == [True, True, False, True]
    assert (four["kept"], three["kept"]) == (False, False)
    assert "beyond noise on 2 of 3: resnet20, dscnn" in four["detail"]
    assert "beyond noise on 1 of 1: kwt1" in three["detail"]


def test_the_mixed_space_holds_the_uniform_settings_way_at_every_width() -> None:
    from quantbench.mixed import Contender, _space

    def of(**fields: Any) -> Any:
        spec = LayerSpec(weight_bits=4, **fields)
        return Contender(
            name="", assignment={"a": spec.weight_only, "b": spec}, variants={}, search_divergence=0.0, n_bytes=1,
            n_bops=1.0,
        )  # fmt: skip

    space = _space(of(weight_method="descent", weight_format="palette", scale_bits=16), "W4")
    assert space["weight_format"] == ["palette", "int_asym"]  # for 8 bits
    assert space["weight_bits"] == [2, 3, 4, 5, 6, 8]
    assert (space["weight_method"], space["scale_bits"], space["activation_bits"]) == (["descent"], [16], [32])
    dynamic = _space(of(weight_method="gptq", activation_bits=4, activation_scheme="dynamic"), "W4A4")
    assert (dynamic["weight_format"], dynamic["activation_bits"]) == (["int"], [4, 6, 8])
    assert dynamic["activation_scheme"] == ["dynamic", "affine"]


@pytest.mark.assets
def test_a_small_comparison(assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from quantbench import mixed as module
    from quantbench.bench import Bench
    from quantbench.subjects import SUBJECTS

    subject = SUBJECTS["dscnn"]()
    subject = replace(subject, search=subject.search.take(40), report=subject.report.take(60))
    monkeypatch.setattr(module, "WEIGHTS", {"affine": {}, "minmax": {"weight_method": "minmax"}})
    found = module.mixed(Bench(subject), "W3", 6, tmp_path, lambda line: None)
    assert found["bytes"] <= found["uniform_bytes"]
    assert found["search_divergence"] <= found["uniform_search_divergence"]
    assert set(found["contenders"]) == {"affine", "minmax"}
    assert found["low"] <= found["gain"] <= found["high"]
    again = module.mixed(Bench(subject), "W3", 6, tmp_path, lambda line: None)  # goes on from its folder
    assert {**again} == {**found}


def test_the_reference_of_gptq_by_hand() -> None:
    """Equal inputs: what the first column loses, the second gives back; with independent inputs it is rounding."""
    from quantbench.reference_gptq import quantized

    weight = torch.tensor([[0.4, 0.4, 15.0, 0.0]], dtype=torch.float64)
    alone = quantized(weight, torch.eye(4, dtype=torch.float64), 4, 4)
    assert alone.tolist() == [[0.0, 0.0, 15.0, 0.0]]
    joined = torch.eye(4, dtype=torch.float64)
    joined[0, 1] = joined[1, 0] = 0.999
    assert quantized(weight, joined, 4, 4).tolist() == [[0.0, 1.0, 15.0, 0.0]]


def test_a_palette_must_be_better_at_no_more_bytes() -> None:
    data = {"metric": "accuracy", "rivals": {}, "settings": rows(W3_palette=0.005)}
    goal = "W3 palette beats W3 affine at no more bytes"
    assert kept(data)[goal]
    data["settings"]["W3 palette"]["bytes"] = 101
    assert not kept(data)[goal]


@pytest.mark.assets
def test_a_small_run(assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantbench import measure as measuring
    from quantbench.subjects import SUBJECTS

    few = {"W8 affine": LayerSpec(weight_bits=8), "W2 minmax": LayerSpec(weight_bits=2, weight_method="minmax")}
    monkeypatch.setattr(measuring, "settings", lambda group_size=0: few)
    monkeypatch.setattr(measuring, "RIVALS", {"nobody": lambda subject: "is not here"})
    monkeypatch.setattr(measuring, "REPAIRED", ("W2 minmax",))
    found = measuring.measure(SUBJECTS["dscnn"](), lambda line: None, samples=60)
    assert found["rivals"] == {"nobody": {"skipped": "is not here"}}
    assert found["settings"]["W8 affine"]["value"] == pytest.approx(found["original"]["value"], abs=0.04)
    assert found["settings"]["W2 minmax"]["gain"] < -0.3
    assert (
        found["settings"]["W2 minmax"]["bytes"] < found["settings"]["W8 affine"]["bytes"] < found["original"]["bytes"]
    )


@pytest.mark.assets
@pytest.mark.parametrize("name", ["resnet8", "stories260k"])
def test_the_models_are_the_published_ones(name: str, assets: Path) -> None:
    """On a part of the data that their figures are of: 86.98 % there, and 1.4795 nats a token."""
    from quantbench.subjects import SUBJECTS

    from paredown.evaluators import evaluate_split, get_metric

    subject = SUBJECTS[name]()
    metric = get_metric(subject.metric)
    scores = evaluate_split(subject.model, subject.report.take(400 if name == "resnet8" else 16), metric, batch_size=16)
    value = metric.finish(float(scores.metric.mean()))
    assert value == pytest.approx(0.87, abs=0.04) if name == "resnet8" else value == pytest.approx(4.39, abs=0.35)
    search = {tuple(x.flatten().tolist()) for x in torch.as_tensor(subject.search.inputs)}
    calibration = {tuple(x.flatten().tolist()) for x in subject.calibration}
    report = {tuple(x.flatten().tolist()) for x in torch.as_tensor(subject.report.inputs)}
    assert not calibration & report | calibration & search | search & report
