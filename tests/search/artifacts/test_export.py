"""Artifacts on demand, of a model that was handed in from Python: no other process can build it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from paredown.errors import InputError
from paredown.search import Front, Task, apply_config, export_point, search, verify_artifact
from paredown.search.artifacts import read_artifact

Given = tuple[Front, Task, nn.Module]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """A searched model that the task does not name, on the runtime whose own format holds weights only."""
    data = {
        "data": {"factory": "tiny.py:data"},
        "quality": {"max_loss": 1.0},
        "space": {"weight_bits": [4, 32], "activation_bits": [32]},
        "hardware": {"runtime": "torch", "latency_seconds": 0.02},
        "budget": {"trials": 1},
        "mlflow": {"enabled": False},
    }
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 10)).eval()
    task = Task.from_dict(data, base_dir=Path(__file__).parents[1] / "tiny")
    return search(task, model=model, out=tmp_path_factory.mktemp("given") / "run", workers=0), task, model


def test_a_fresh_process_verifies_it_as_a_whole_program(given: Given, tmp_path: Path) -> None:
    front, task, model = given
    assert all(point.verified for point in front.points), [point.note for point in front.points]
    assert read_artifact(front.run / "verified" / front.points[1].id).format == "pt2"
    copied = front.export(front.points[1], format="pt2", out=tmp_path / "pt2")
    assert verify_artifact(copied, task=task, model=model)["ok"]
    made = front.export(front.points[1], format="onnx", out=tmp_path / "onnx", model=model)
    assert read_artifact(made).runtime == "onnxruntime"
    out = apply_config(front.points[1].config, task, tmp_path / "applied", model=model)
    assert read_artifact(out).format == "pt2"


def test_it_is_compared_with_the_original_and_not_with_itself(given: Given, tmp_path: Path) -> None:
    front, task, model = given
    point = front.points[1]
    made = read_artifact(apply_config(point.config, task, tmp_path / "applied", model=model))
    assert point.metrics["divergence"].value > 1e-5
    assert made.claims["divergence"].value == pytest.approx(point.metrics["divergence"].value)


def test_without_the_original_it_is_checked_as_far_as_it_goes(given: Given) -> None:
    front, task, _ = given
    found = verify_artifact(front.run / "verified" / front.points[1].id, task=task)
    assert found["ok"]
    assert found["measured"]["accuracy"]["value"] == front.points[1].metrics["accuracy"].value
    assert "divergence" not in found["measured"]
    assert [check["name"] for check in found["checks"]][:4] == ["files", "claims", "data", "accuracy"]
    assert "the task has no [model]" in found["checks"][-1]["detail"]


def test_what_cannot_be_done_is_said_before_anything_is_written(given: Given, tmp_path: Path) -> None:
    front, task, model = given
    point, out = front.points[1].id, tmp_path / "out"
    for attempt in (
        lambda: front.export(point, format="onnx", out=out),
        lambda: apply_config(front.points[1].config, task, out),
    ):
        with pytest.raises(InputError, match=r"the model was handed in from Python .* with model="):
            attempt()
    for attempt in (
        lambda: export_point(front.run, point, "paredown", out, model=model),
        lambda: apply_config(front.points[1].config, task, out, format="paredown", model=model),
    ):
        with pytest.raises(InputError, match=r"'paredown' holds weights only.* take 'pt2' or 'onnx'"):
            attempt()
    assert not out.exists()
