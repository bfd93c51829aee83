"""A weight method from outside the package: registered by the driver, by Ray's worker and by the fresh process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from paredown.compressors import LayerSpec, load_model
from paredown.search import Completed, Task, open_run, search
from paredown.search.task import load_task_model
from paredown.testing import check_compressor


def test_it_is_searched_verified_and_loaded_again(
    recipe: Callable[..., Task], tmp_path: Path, verified_elsewhere: Callable[[Path], dict[str, Any]]
) -> None:
    task = recipe("A compressor", "space.activation_bits=[32]", "budget.trials=3")
    front = search(task, out=tmp_path / "run", workers=1)
    check_compressor("weight", "least_squares")
    run = open_run(tmp_path / "run")
    mine = {label for level in run.space.groups[0].levels if "least_squares" in (label := level.label())}
    assert mine == {"w4:least_squares", "w2:least_squares"}
    assert all(isinstance(trial, Completed) for trial in run.trials)
    uniform = [run.space.assignment(trial.candidate)["first"] for trial in run.trials if trial.kind == "uniform"]
    assert LayerSpec(weight_bits=4, weight_method="least_squares") in uniform
    assert LayerSpec(weight_bits=4) in uniform
    of_mine = [point for point in front.points if "least_squares" in str(point.config)]
    assert of_mine
    assert all(point.verified for point in of_mine)
    artifact = tmp_path / "run" / "verified" / of_mine[0].id
    assert verified_elsewhere(artifact)["ok"]
    specs = load_model(artifact / "model.safetensors", load_task_model(task))
    assert "least_squares" in {spec.weight_method for spec in specs.values()}
