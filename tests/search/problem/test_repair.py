"""[repair]: what a trial sees is what is exported, without a byte more."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paredown.compressors import layer_bytes, load_model, model_digest, reconstruct
from paredown.errors import TaskError
from paredown.evaluators import run_split
from paredown.search import Candidate, Task, apply_config, open_run, search
from paredown.search.artifacts import Exporter
from paredown.search.evaluation import CandidateModel, Worker
from paredown.search.problem import prepare


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 16, 5)
        self.bare = nn.Linear(5, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.bare(self.fc(torch.relu(self.norm(self.conv(x))).flatten(1)))


def factory() -> nn.Module:
    return Net()


def data() -> tuple[Tensor, Tensor]:
    x = torch.rand(300, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return x, Net().eval()(x).argmax(1)


class Sharp(Net):
    """Sure of its answers, so that the divergence says something."""

    def forward(self, x: Tensor) -> Tensor:
        return 20.0 * super().forward(x)


def sharp() -> nn.Module:
    return Sharp()


ROUNDED = {"weight_bits": [2], "activation_bits": [8], "weight_method": ["minmax"]}
FEW = {"weight_bits": [3, 8], "activation_bits": [32]}


def task(
    scaling: str = "off",
    space: Mapping[str, object] | None = None,
    model: Any = factory,
    calibration: int = 60,
    **repair: object,
) -> Task:
    return Task.from_dict(
        {
            "model": {"factory": model},
            "data": {"factory": data, "calibration": calibration, "search": 100, "report": min(100, 200 - calibration)},
            "space": space or {"weight_bits": [2, 3, 8], "activation_bits": [32, 8], "weight_method": ["affine"]},
            "hardware": {"runtime": "torch", "latency_seconds": 0.02},
            "search": {"table_samples": 16},
            "budget": {"trials": 6},
            "mlflow": {"enabled": False},
            "prepare": {"scaling": scaling},
            "repair": repair,
        },
        base_dir=Path(__file__).parent,
    )


@pytest.mark.parametrize(
    "repair", [{"bias": True}, {"batch_norm": "trials"}, {"bias": True, "batch_norm": "trials", "samples": 40}]
)
def test_a_trial_sees_what_is_exported(repair: dict[str, object], tmp_path: Path) -> None:
    plain, mended = (prepare(task(**keys), store=tmp_path / "store") for keys in ({}, repair))
    space, inputs = mended.space, mended.context.split.inputs
    candidate = Candidate(levels=tuple(len(group.levels) - 1 for group in space.groups))
    assignment = space.assignment(candidate)
    exporter, before = Exporter(mended), model_digest(mended.context.model)
    path = exporter.export(assignment, "paredown", tmp_path / "out")
    assert model_digest(mended.context.model) == before
    loaded = factory().eval()
    load_model(path, loaded)
    with torch.no_grad(), exporter.candidate_model.applied(candidate):
        assert torch.equal(mended.context.model(inputs), loaded(inputs))
    with torch.no_grad(), exporter.as_compressed(assignment) as (left, *_):
        assert torch.allclose(run_split(left, mended.report), loaded(mended.report.inputs), atol=1e-5)
    found = [Worker(p.context).evaluate_low_fidelity(candidate, 100).metrics for p in (plain, mended)]
    apart = [metrics["divergence"].value for metrics in found]
    assert apart[1] < apart[0] if "bias" in repair else apart[1] != apart[0]
    sizes = [Exporter(p).stored_bytes(assignment, tmp_path / "size") for p in (plain, mended)]
    assert sizes[0] == sizes[1] == path.stat().st_size
    variant = exporter.candidate_model.layers.variant("conv", assignment["conv"])
    assert layer_bytes(mended.anatomy["conv"], assignment["conv"], variant) > 0


def test_finalists_alone_are_repaired_where_that_is_asked_for(tmp_path: Path) -> None:
    problem = prepare(task(batch_norm="finalists"), store=tmp_path / "store")
    candidate_model, x = CandidateModel(problem.context), problem.context.split.inputs
    candidate = Candidate(levels=tuple(len(group.levels) - 1 for group in problem.space.groups))
    assignment = problem.space.assignment(candidate)
    mean = problem.context.model.norm.running_mean
    assert isinstance(mean, Tensor)
    before = mean.clone()
    with torch.no_grad(), candidate_model.applied(candidate):
        assert torch.equal(mean, before)
        problem.context.model(x)
    with candidate_model.repaired(assignment):
        assert not torch.equal(mean, before)
    assert torch.equal(mean, before)


def test_a_job_that_was_interrupted_leaves_nothing(tmp_path: Path) -> None:
    problem = prepare(task(bias=True, batch_norm="trials"), store=tmp_path / "store")
    candidate_model, before = CandidateModel(problem.context), model_digest(problem.context.model)
    levels = tuple(len(group.levels) - 1 for group in problem.space.groups)
    interrupted = candidate_model.applied(Candidate(levels=levels))
    interrupted.__enter__()
    assert model_digest(problem.context.model) != before
    candidate_model.reset()
    assert model_digest(problem.context.model) == before


def test_a_search_ends_in_verified_points_and_says_what_it_could_not_correct(tmp_path: Path) -> None:
    front = search(task(bias=True, batch_norm="trials", samples=30), out=tmp_path / "run", workers=0)
    notes = open_run(tmp_path / "run").state.notes
    assert all(point.verified for point in front.points), [point.note for point in front.points]
    assert any("[repair] bias has no place in 1 of 3 layers" in note and "bare" in note for note in notes)


@pytest.mark.parametrize("scaling", ["equalize", "awq"])
def test_a_model_that_was_prepared_is_still_the_task_s_own(scaling: str, tmp_path: Path) -> None:
    """Its channels are scaled, its outputs and the artifact's model are not other ones."""
    plain, ready = (prepare(task(scaling=how), store=tmp_path / "store") for how in ("off", scaling))
    assert ready.model_digest == plain.model_digest == model_digest(factory())
    assert model_digest(ready.context.model) != plain.model_digest
    outputs = plain.context.reference.outputs
    assert torch.allclose(ready.context.reference.outputs, outputs, rtol=1e-4, atol=1e-5)
    assignment = ready.space.assignment(Candidate(levels=(0,) * len(ready.space)))
    path, loaded = Exporter(ready).export(assignment, "paredown", tmp_path / "out"), factory().eval()
    load_model(path, loaded)
    with torch.no_grad(), CandidateModel(ready.context).applied(Candidate(levels=(0,) * len(ready.space))):
        assert torch.equal(ready.context.model(ready.context.split.inputs), loaded(ready.context.split.inputs))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps."""
    monkeypatch.setitem(reconstruct.__kwdefaults__, "steps", 60)  # type: ignore[arg-type]


@pytest.mark.usefixtures("quick")
def test_blocks_are_reconstructed_in_what_is_exported_alone(tmp_path: Path) -> None:
    """Trials see the codes that the store has; an export has others, the same each time, and says what came of it."""
    asked = task(space=ROUNDED, model=sharp, calibration=150, block_reconstruction=True)
    problem = prepare(asked, store=tmp_path / "store")
    assignment = problem.space.assignment(Candidate(levels=(0,) * len(problem.space)))
    exporter, before = Exporter(problem), model_digest(problem.context.model)
    path = exporter.export(assignment, "paredown", tmp_path / "out")
    assert model_digest(problem.context.model) == before
    assert any(
        "blocks are nearer to the original on samples held out" in line
        for line in exporter.describe_repairs(assignment)
    )
    assert len(list((tmp_path / "store" / "blocks").iterdir())) == 1
    loaded, inputs = sharp().eval(), problem.report.inputs
    load_model(path, loaded)
    with torch.no_grad(), exporter.as_compressed(assignment) as (left, *_):
        assert torch.equal(left(inputs), loaded(inputs))
    with torch.no_grad(), exporter.candidate_model.applied(Candidate(levels=(0,) * len(problem.space))) as left:
        assert not torch.equal(left(inputs), loaded(inputs))
    assert exporter.stored_bytes(assignment, tmp_path / "size") == path.stat().st_size
    fresh = Exporter(prepare(asked, store=tmp_path / "other"))
    again = fresh.export(assignment, "paredown", tmp_path / "again")
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("quick")
def test_a_search_with_block_reconstruction_says_what_it_did(tmp_path: Path) -> None:
    front = search(task(space=FEW, block_reconstruction=True, samples=30), out=tmp_path / "run", workers=0)
    assert all(point.verified for point in front.points), [point.note for point in front.points]
    assert any(": block reconstruction: " in note for note in open_run(tmp_path / "run").state.notes)
    point = next(p for p in front.points if p.kind != "original")
    same = task(space=FEW, block_reconstruction=True, samples=30)
    folders = (
        apply_config(point.config, same, tmp_path / "applied", format="paredown"),
        tmp_path / "run" / "verified" / point.id,
    )
    files = [[file.read_bytes() for file in sorted(folder.glob("*.safetensors"))] for folder in folders]
    assert files[0]
    assert files[0] == files[1]


def test_block_reconstruction_is_asked_for_by_yes_or_no(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"repair\.block_reconstruction"):
        task(block_reconstruction="brecq")
    with pytest.raises(TaskError, match=r"repair\.block_reconstruction: a block with fewer channels"):
        prepare(task(space={"channels": [1.0, 0.5]}, block_reconstruction=True), store=tmp_path)
