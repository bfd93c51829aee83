"""Repairs that a task leaves open: decided on calibration samples alone, recorded, and the same wherever asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paredown.compressors import load_model
from paredown.search import Task, apply_config, export_point, open_run, search
from paredown.search.artifacts import read_artifact
from paredown.search.phases import _settle_repairs as module
from paredown.search.phases import settle_repairs
from paredown.search.problem import prepare
from paredown.search.run import read_run


class Normed(nn.Module):
    """Deep enough that errors of few bits shift what the norms see."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convs = nn.ModuleList(nn.Conv2d(1 if i == 0 else 8, 8, 3, padding=1, bias=False) for i in range(5))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(5))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = torch.relu(norm(conv(x)))
        return 3.0 * self.fc(x.mean((2, 3)))


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(36, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))


def samples(n: int, seed: int = 1) -> Tensor:
    return torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(seed)) ** 3


def normed() -> nn.Module:
    model = Normed().train()
    with torch.no_grad():
        for seed in range(30):  # the running statistics settle
            model(samples(64, seed))
    return model.eval()


def bare() -> nn.Module:
    return Bare().eval()


def data() -> tuple[Tensor, Tensor]:
    x = samples(400)
    with torch.no_grad():
        return x, normed()(x).argmax(1)


def task(model: Any = normed, calibration: int = 120, bits: tuple[int, ...] = (2, 3, 8), **more: Any) -> Task:
    return Task.from_dict(
        {
            "model": {"factory": model},
            "data": {"factory": data, "calibration": calibration, "search": 100, "report": 100},
            "space": {"weight_bits": bits, "activation_bits": [32], **more.pop("space", {})},
            "hardware": {"runtime": "torch", "latency_seconds": 0.02},
            "search": {"table_samples": 16},
            "budget": {"trials": 3},
            "mlflow": {"enabled": False},
            **more,
        },
        base_dir=Path(__file__).parent,
    )


def settled(tmp_path: Path, **keys: Any) -> Any:
    return settle_repairs(prepare(task(**keys), store=tmp_path / "store"))


def test_what_helps_is_on_and_said(tmp_path: Path) -> None:
    problem = settled(tmp_path, space={"weight_method": ["affine"]}, repair={"bias": False})
    assert problem.context.repair.batch_norm == "trials"
    assert problem.task.repair == problem.context.repair
    assert problem.context.repair.samples == 64  # of a search split of 100
    assert sum(len(batch) for batch in problem.context.repair_inputs) == 64
    (note,) = (line for line in problem.notes if line.startswith("[repair]"))
    assert "batch norms are recalibrated" in note
    assert "60 calibration samples put aside, uniform w3 and w2" in note


def test_it_looks_at_no_search_or_report_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, seen = prepare(task(), store=tmp_path / "store"), []
    apart = module._apart

    def watched(model: nn.Module, split: Any, *rest: Any) -> Any:
        seen.append(split)
        return apart(model, split, *rest)

    monkeypatch.setattr(module, "_apart", watched)
    settle_repairs(problem)
    known = set(problem.splits.calibration.sample_digests())
    assert seen
    assert all(set(split.sample_digests()) <= known for split in seen)
    fit, aside = module._parted(problem.splits.calibration, 60)
    assert not set(fit.sample_digests()) & set(aside.sample_digests())
    assert len(fit) + len(aside) == 120


def test_the_decision_is_the_same_every_time(tmp_path: Path) -> None:
    one, two = (settled(tmp_path / name) for name in "ab")
    assert one.context.repair == two.context.repair
    assert one.notes == two.notes


@pytest.mark.parametrize(
    "repair",
    [
        {"bias": False, "batch_norm": "off"},
        {"bias": True, "batch_norm": "finalists"},
        {"bias": False, "batch_norm": None},  # of an older task
    ],
)
def test_what_a_task_names_is_not_decided(repair: dict[str, Any], tmp_path: Path) -> None:
    problem = settled(tmp_path, repair=repair)
    assert problem.context.repair.batch_norm == (repair["batch_norm"] or "off")
    assert problem.context.repair.bias is repair["bias"]
    assert problem.context.repair.samples == 256
    assert not any(line.startswith("[repair]") for line in problem.notes)


def test_one_that_is_open_leaves_the_other_as_it_is(tmp_path: Path) -> None:
    problem = settled(tmp_path, repair={"bias": True, "batch_norm": "auto"})
    assert problem.context.repair.bias is True


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"model": bare}, "no place for others that cost no byte"),
        ({"calibration": 15}, "15 calibration samples are too few to judge repairs, 16 do"),
    ],
)
def test_where_nothing_can_be_decided_they_are_off(keys: dict[str, Any], why: str, tmp_path: Path) -> None:
    problem = settled(tmp_path, **keys)
    assert (problem.context.repair.bias, problem.context.repair.batch_norm) == (False, "off")
    assert why in next(line for line in problem.notes if line.startswith("[repair]"))


def test_a_repair_that_raises_the_divergence_stays_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = prepare(task(repair={"batch_norm": "off"}), store=tmp_path / "store")
    monkeypatch.setattr(
        module, "_judged",
        lambda problem, choices, *rest: iter(
            [{(False, False): module._Apart(squared=torch.ones(60), divergence=torch.ones(60)),
              (True, False): module._Apart(squared=torch.full((60,), 0.5), divergence=torch.full((60,), 1.1))}]
        ),
    )  # fmt: skip
    assert settle_repairs(problem).context.repair.bias is False


def test_a_run_keeps_the_decision_for_its_exports_and_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = task(space={"weight_method": ["affine"]}, repair={"bias": False})
    front = search(options, out=tmp_path / "run", workers=0)
    run = open_run(tmp_path / "run")
    assert run.facts().repair == {"bias": False, "batch_norm": "trials", "samples": 64}
    assert any(line.startswith("[repair]") for line in read_run(tmp_path / "run").state.notes)
    assert json.loads((tmp_path / "run" / "task.json").read_text())["task"]["repair"]["batch_norm"] == "auto"
    point = next(iter(front.points))
    monkeypatch.setattr(module, "_decided", lambda *given: pytest.fail("decided again"))
    folder = export_point(tmp_path / "run", point.id, "pt2", tmp_path / "out")
    assert read_artifact(folder).task["repair"]["batch_norm"] == "trials"
    search(options, out=tmp_path / "run", workers=0)  # goes on, and has nothing left to do
    monkeypatch.undo()
    config = export_point(tmp_path / "run", point.id, "config", tmp_path / "config") / "config.json"
    applied, exported = (tmp_path / "applied", tmp_path / "exported")
    apply_config(config, options, applied, format="paredown")
    export_point(tmp_path / "run", point.id, "paredown", exported)
    models = []
    for folder in (applied, exported):
        models.append(normed())
        load_model(read_artifact(folder).main_path, models[-1])
    assert torch.equal(models[0](samples(5)), models[1](samples(5)))
