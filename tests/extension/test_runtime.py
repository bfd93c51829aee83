"""A runtime from outside the package: its artifacts are written, loaded and timed by it, and bear its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paredown.errors import InputError
from paredown.evaluators.runtimes import get_runtime
from paredown.search import Task, apply_config, export_point, open_run, search
from paredown.search.artifacts import read_artifact
from paredown.testing import check_runtime


@pytest.fixture
def runtime_task(recipe: Callable[..., Task], repository: Path) -> Callable[..., Task]:
    """The recipe, and beside it the copy of a profile that it names."""

    def make(*overrides: str) -> Task:
        task = recipe("A runtime", "space.activation_bits=[32]", "budget.trials=3", *overrides)
        profile = json.loads((repository / "hardware_profiles" / "data" / "x86-64-torch.json").read_text())
        profile |= {"name": "channels-last", "runtime": "channels-last"}
        task.path(task.hardware.profile or "").write_text(json.dumps(profile))
        return task

    return make


def test_it_verifies_a_search_and_its_artifacts_are_its_own(
    runtime_task: Callable[..., Task], tmp_path: Path, verified_elsewhere: Callable[[Path], dict[str, Any]]
) -> None:
    front = search(runtime_task(), out=tmp_path / "run", workers=0)
    assert all(point.verified for point in front.points)
    assert open_run(tmp_path / "run").facts().profile == "channels-last"
    artifact = tmp_path / "run" / "verified" / front.points[-1].id
    assert read_artifact(artifact).runtime == "channels-last"
    found = verified_elsewhere(artifact)
    assert (found["ok"], found["runtime"]) == (True, "channels-last")
    check_runtime(get_runtime("channels-last"), models=("convolutions", "tied_weights"))


def test_a_format_of_its_own_is_exported_and_applied(runtime_task: Callable[..., Task], tmp_path: Path) -> None:
    task = runtime_task('plugins=["own.py"]', "hardware.runtime=own", "budget.trials=1")
    task.path("own.py").write_text(_OWN_FORMAT)
    front = search(task, out=tmp_path / "run", workers=0)
    out = export_point(tmp_path / "run", front.original.id, "own", tmp_path / "out")
    assert (out / "weights.own").is_file()
    config = {"schema_version": 1, "layers": {"first": {"weight_bits": 4}}}
    applied = read_artifact(apply_config(config, task, tmp_path / "applied"))
    assert (applied.runtime, applied.format, applied.main) == ("own", "own", "weights.own")
    with pytest.raises(
        InputError,
        match=r"format must be one of paredown, onnx, openvino, own, pt2, .*, got 'owm'",
    ):
        export_point(tmp_path / "run", "t0", "owm", tmp_path / "typo")


_OWN_FORMAT = """
from paredown.evaluators.runtimes import TorchRuntime, register_runtime

class Own(TorchRuntime):
    name = format = "own"

    def export(self, model, assignment, variants, calibration, example_inputs, out):
        path = super().export(model, assignment, variants, calibration, example_inputs, out)
        return path.rename(out / "weights.own")

register_runtime(Own())
"""
