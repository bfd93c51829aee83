"""The channels benchmark: what it calls a gain, its goals, and batch norms that are estimated again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks" / "pruning"))

from channelbench.goals import goals
from channelbench.quality import _packed, _row, _unpacked
from channelbench.subjects import reestimated
from pieces import Pieces


def test_a_gain_is_beyond_the_spread_of_the_random_draws() -> None:
    right = torch.tensor([1.0] * 80 + [0.0] * 20)
    steady = torch.tensor([[1.0] * 50 + [0.0] * 50, [1.0] * 51 + [0.0] * 49])
    wild = torch.tensor([[1.0] * 20 + [0.0] * 80, [1.0] * 81 + [0.0] * 19])
    sure, unsure = _row(right, 10, steady), _row(right, 10, wild)
    assert sure["gain"] == pytest.approx(0.295)
    assert sure["p"] < 0.001
    assert unsure["gain"] == pytest.approx(0.295)
    assert unsure["p"] > 0.05


def test_what_is_kept_of_a_draw_is_the_draw() -> None:
    correct = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    assert torch.equal(_unpacked(_packed(correct), 11), correct)


def test_pieces_of_other_settings_or_code_are_not_put_together(tmp_path: Path) -> None:
    def opened(seeds: int, folder: str = "benchmarks/pruning/channelbench", minutes: float | None = None) -> Pieces:
        return Pieces(out, command="x", settings={"seeds": seeds}, folders=(folder,), minutes=minutes)

    out = tmp_path / "result.json"
    first = opened(2)
    first.result["models"]["net"] = {"done": True}
    first.save()
    assert opened(2).result["models"] == {"net": {"done": True}}
    assert opened(2, minutes=0.0).spent
    assert not opened(2, minutes=9.0).spent
    for other in (lambda: opened(3), lambda: opened(2, "benchmarks/pruning/weightbench")):
        with pytest.raises(SystemExit, match="was made with another"):
            other()


def test_goals_that_are_missed_are_told() -> None:
    row = {"score": "l2", "allocation": "uniform", "p": 0.2, "gain": 0.01, "error": 0.02}
    timed = {
        "speed_up": 2.0, "round_to": 8, "runtime": "openvino", "batch": {"1": {"faster": 1.6}, "32": {"faster": 1.8}},
    }  # fmt: skip
    result = {"models": {"net": {"quality": {"1.5": {"rows": [row, row | {"p": 0.01}]}}, "latency": [timed]}}}
    assert [goal["kept"] for goal in goals(result)] == [False, True, True]
    slow = timed | {"batch": {"1": {"faster": 1.4}, "32": {"faster": 1.8}}}
    assert [goal["kept"] for goal in goals({"models": {"net": {"latency": [slow]}}})] == [False]


def test_batch_norms_have_the_statistics_of_the_data_and_nothing_else_is_changed() -> None:
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4)).eval()
    inputs = torch.randn(256, 3, generator=torch.Generator().manual_seed(0)) + 2.0
    again = reestimated(model, inputs)
    with torch.no_grad():
        made = model[0](inputs)
    torch.testing.assert_close(again[1].running_mean, made.mean(dim=0), atol=1e-4, rtol=1e-4)
    assert float(model[1].running_mean.abs().max()) == 0.0
    assert not again.training
    assert torch.equal(again[0].weight, model[0].weight)
