"""A metric from outside the package: it is an objective, keeps a limit, and is what an artifact claims."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from paredown.evaluators import get_metric
from paredown.search import Task, search, verify_artifact
from paredown.testing import check_metric


def test_it_is_searched_for_limited_and_verified(recipe: Callable[..., Task], tmp_path: Path) -> None:
    task = recipe("A metric", "space.activation_bits=[32]", "limits.top3.max_drop=0.5")
    front = search(task, out=tmp_path / "run", workers=0)
    original = front.original
    assert [objective.name for objective in front.objectives] == ["top3", "bytes"]
    assert original.metrics["top3"].unit == "fraction"
    assert original.metrics["top3"].value == _top3_of_the_original(task)
    found = verify_artifact(tmp_path / "run" / "verified" / front.points[-1].id, task=task)
    assert found["ok"]
    assert "top3" in {check["name"] for check in found["checks"]}
    outputs = torch.eye(10)[:4] - torch.arange(10) / 100  # the right answer first, then 0, 1 and 2
    check_metric(get_metric("top3"), outputs, torch.tensor([0, 1, 2, 9]), worse=-outputs)


def _top3_of_the_original(task: Task) -> float:
    """By hand: sorted logits of the report split."""
    from paredown.search.task import load_task_data, load_task_model

    report = load_task_data(task).report
    assert isinstance(report.inputs, torch.Tensor)
    assert report.targets is not None
    with torch.no_grad():
        order = load_task_model(task)(report.inputs).sort(dim=1, descending=True).indices[:, :3].tolist()
    hits = [int(target) in row for row, target in zip(order, report.targets.tolist(), strict=True)]
    return sum(hits) / len(hits)
