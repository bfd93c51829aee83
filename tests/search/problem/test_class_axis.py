"""Class axis of a task: decided once, before anything is spent, and used for every figure of a run."""

from __future__ import annotations

from collections import UserDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from paredown.compressors.anatomy import Outputs, primary
from paredown.errors import InputError, TaskError
from paredown.evaluators import MetricError, run_split
from paredown.search import Candidate, Task, open_run, search
from paredown.search.artifacts import Exporter
from paredown.search.evaluation import Worker
from paredown.search.problem import Problem, prepare
from paredown.search.space import assignment_of

CONTAINERS = {
    "tensor": lambda x: x,
    "tuple": lambda x: (x, x.mean()),
    "list": lambda x: [x, x.mean()],
    "dict": lambda x: {"logits": x},
    "mapping": lambda x: UserDict({"logits": x}),
    "object": lambda x: SimpleNamespace(logits=x),
}


class Maps(nn.Module):
    """Maps (N, C, H, W), sequences (N, C, T), or either with the classes last, in a container."""

    def __init__(self, n_axes: int, last: bool, container: str, n_classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        kind = nn.Conv2d if n_axes == 4 else nn.Conv1d
        self.first, self.second = kind(1, 6, 3, padding=1), kind(6, n_classes, 3, padding=1)
        self.last, self.container = last, container

    def logits(self, x: Tensor) -> Tensor:
        found = 5.0 * self.second(torch.relu(self.first(x)))
        return found.movedim(1, -1) if self.last else found

    def forward(self, x: Tensor) -> Any:
        return CONTAINERS[self.container](self.logits(x))


def data(shape: list[int], last: bool = False, n_classes: int = 3, fits: bool = True) -> tuple[Tensor, Tensor]:
    """Inputs, and the model's answers with some of them changed; or targets that fit no axis."""
    model = Maps(len(shape) + 2, last, "tensor", n_classes).eval()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(60, 1, *shape, generator=generator)
    with torch.no_grad():
        y = model.logits(x).argmax(-1 if last else 1)
    y = torch.where(torch.rand(y.shape, generator=generator) < 0.2, (y + 1) % 3, y)
    return x, y if fits else torch.zeros(60, 2).long()


def _task(metric: str = "accuracy", *, runtime: str = "torch", given: dict[str, Any], **quality: Any) -> Task:
    """A task; `given` are the arguments of `data`."""
    named = {"factory": f"{__file__}:data", "args": given, "calibration": 20, "search": 20, "report": 20}
    return Task.from_dict(
        {
            "data": {**named, "batch_size": 8},
            "quality": {"metric": metric, **quality},
            "hardware": {"runtime": runtime},
            "space": {"weight_bits": [2, 8, 32], "activation_bits": [32]},
            "budget": {"trials": 2},
        }
    )


MAPS = {"shape": [5, 4]}


def own(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.flatten(1).mean(1)


def _plain(problem: Problem, outputs: Outputs, axis: int) -> tuple[float, float]:
    """Accuracy and KL from the original on the search split, in plain PyTorch."""
    context, targets = problem.context, problem.context.split.targets
    assert targets is not None
    outputs, reference = primary(outputs), primary(context.reference.outputs)
    pair = outputs.double().log_softmax(axis), reference.double().log_softmax(axis)
    kl = functional.kl_div(*pair, log_target=True, reduction="none").sum(axis).mean()
    return float((outputs.argmax(axis) == targets).double().mean()), float(kl)


@pytest.mark.parametrize(
    ("shape", "last", "container"),
    [
        *(((5, 4), False, container) for container in CONTAINERS),
        *((shape, last, "tensor") for shape, last in (((5,), False), ((5, 4), True), ((5,), True))),
    ],
)
def test_figures_are_those_of_plain_pytorch(tmp_path: Path, container: str, shape: tuple[int, ...], last: bool) -> None:
    model = Maps(len(shape) + 2, last, container)
    given = {"shape": list(shape), "last": last}
    problem = prepare(_task(given=given), store=tmp_path / "store", model=model)
    context, axis = problem.context, -1 if last else 1
    assert context.class_axis == context.metric.class_axis == axis
    accuracy, _ = _plain(problem, context.reference.outputs, axis)
    assert problem.quality["accuracy"].value == pytest.approx(accuracy)
    assert 0.7 < accuracy < 0.9
    bits = [[spec.weight_bits for spec in group.levels] for group in context.space.groups]
    candidate = Candidate(levels=tuple(one.index(2) for one in bits))
    worker = Worker(context)
    with torch.no_grad(), worker.candidate_model.applied(candidate):
        outputs = model.logits(context.split.inputs)
    found = worker.evaluate(candidate, quality=None).metrics
    accuracy, kl = _plain(problem, outputs, axis)
    assert kl > 0.01
    assert (found["accuracy"].value, found["divergence"].value) == pytest.approx((accuracy, kl), rel=1e-4)


def test_the_table_and_its_estimate_are_over_the_classes(tmp_path: Path) -> None:
    rows: list[list[float]] = []
    estimates = []
    for last in (False, True):
        model = Maps(4, last, "tensor")
        worker = Worker(
            prepare(_task(given=MAPS | {"last": last}), store=tmp_path / f"store{last}", model=model).context
        )
        rows.append([row.value or 0.0 for row in worker.measure_rows(0, [0, 1, 2], 20, 20)])
        estimates.append(worker.estimate_sensitivity(20, 0).values[0])
        assert max(rows[-1]) > 0.01
    assert rows[0] == pytest.approx(rows[1], rel=1e-4)
    assert estimates[0] == pytest.approx(estimates[1], rel=1e-4)


def test_square_maps_are_refused_by_name(tmp_path: Path) -> None:
    model = Maps(4, False, "tensor", n_classes=4)
    given = {"shape": [4, 4], "n_classes": 4}
    with pytest.raises(MetricError, match=r"may lie on axis 1 or on the last .* \[quality\] class_axis"):
        prepare(_task(given=given), store=tmp_path / "store", model=model)
    problem = prepare(_task(given=given, class_axis=1), store=tmp_path / "store", model=model)
    assert problem.context.class_axis == 1
    assert problem.quality["accuracy"].value == pytest.approx(_plain(problem, problem.context.reference.outputs, 1)[0])


def test_kl_without_a_known_axis_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    model = Maps(4, False, "tensor")
    given, metric = MAPS | {"fits": False}, f"{__file__}:own"
    with pytest.raises(MetricError, match=r"got targets \(1, 2\); set \[quality\] class_axis"):
        prepare(_task(metric, given=given, maximise=True, divergence="kl"), store=tmp_path / "store", model=model)
    assert (
        prepare(_task(metric, given=given, maximise=True), store=tmp_path / "a", model=model).context.class_axis is None
    )
    named = _task(metric, given=given, maximise=True, divergence="kl", class_axis=1)
    assert prepare(named, store=tmp_path / "b", model=model).context.class_axis == 1


@pytest.mark.parametrize("axis", [0, 1.5, True, "1"])
def test_an_axis_that_cannot_be_is_refused_with_the_task(axis: object) -> None:
    with pytest.raises(TaskError, match=r"quality\.class_axis"):
        _task(given=MAPS, class_axis=axis)


def test_a_task_that_names_no_axis_is_stored_as_before_that_key() -> None:
    assert "class_axis" not in _task(given=MAPS).to_dict()["quality"]
    named = _task(given=MAPS, class_axis=1).to_dict()
    assert named["quality"]["class_axis"] == 1
    assert Task.from_dict(named).quality.class_axis == 1


def test_an_axis_that_the_outputs_lack_is_refused(tmp_path: Path) -> None:
    model = Maps(4, False, "tensor")
    with pytest.raises(InputError, match=r"class_axis = 4 is no axis of classes in outputs \(1, 3, 5, 4\)"):
        prepare(_task(given=MAPS, class_axis=4), store=tmp_path / "store", model=model)


def test_a_whole_run_prints_what_its_weights_give_in_pytorch(tmp_path: Path) -> None:
    model = Maps(4, False, "tensor")
    task = _task(runtime="onnxruntime", given=MAPS)
    search(task, out=tmp_path / "run", model=model)
    problem = prepare(task, store=tmp_path / "store", model=model)
    exporter, report = Exporter(problem), problem.report
    points = [point for point in open_run(tmp_path / "run").front().points if point.verified]
    assert len(points) > 1
    with torch.no_grad():
        original = model.logits(report.inputs)
    assert report.targets is not None
    for point in points:
        with exporter.as_compressed(assignment_of(point.config, problem.anatomy)) as (compressed, _, _):
            outputs = run_split(compressed, report)
        accuracy = float((outputs.argmax(1) == report.targets).double().mean())
        assert point.metrics["accuracy"].value == pytest.approx(accuracy, abs=1e-9)
        pair = outputs.double().log_softmax(1), original.double().log_softmax(1)
        kl = float(functional.kl_div(*pair, log_target=True, reduction="none").sum(1).mean())
        assert point.metrics["divergence"].value == pytest.approx(kl, rel=1e-3, abs=1e-6)
        if "runtime_same_answer" in point.metrics:
            assert point.metrics["runtime_same_answer"].n == 20 * 20
