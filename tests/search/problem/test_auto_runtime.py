"""`runtime = "auto"` takes the fastest runtime that keeps the outputs, says why, and a run keeps it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from paredown.errors import IntegrityError, TaskError
from paredown.evaluators.runtimes import TorchRuntime, register_runtime
from paredown.search import Task
from paredown.search.problem import RuntimeTrial, choose_runtime, describe_runtime_choice, settle_runtime
from paredown.testing import isolated_registries


def tried(runtime: str, setting: str, ms: float | None, why_not: str | None = None) -> RuntimeTrial:
    return RuntimeTrial(runtime=runtime, setting=setting, ms=ms, off=0.0, why_not=why_not)


def digits() -> Task:
    from paredown.digits import TASK_PATH

    return Task.load(TASK_PATH).with_overrides(["hardware.runtime=auto"])


def test_the_fastest_wins_whatever_its_setting() -> None:
    choice = choose_runtime(
        [tried("a", "fp32", 1.0), tried("a", "int8", 2.0), tried("b", "fp32", 3.0), tried("b", "int8", 0.5)]
    )
    assert choice["runtime"] == "b"
    assert describe_runtime_choice(choice) == (
        "runtime auto: b, because int8 takes 0.5 ms at batch 1 there, and a fp32 1 ms, a int8 2 ms, b fp32 3 ms"
    )


def test_a_tie_goes_to_the_first() -> None:
    assert choose_runtime([tried("a", "fp32", 1.02), tried("b", "fp32", 1.0)])["runtime"] == "a"


def test_what_is_out_is_named() -> None:
    choice = choose_runtime([tried("a", "fp32", None, "not installed"), tried("b", "fp32", 1.0)])
    assert choice["why"].endswith("Out: a fp32: not installed")
    with pytest.raises(TaskError, match="no runtime gives this model's outputs: a fp32: not installed"):
        choose_runtime([tried("a", "fp32", None, "not installed")])


def test_a_task_with_a_runtime_is_left_alone() -> None:
    task = digits().with_overrides(["hardware.runtime=torch"])
    assert settle_runtime(task) == (task, None)


def test_a_run_goes_on_with_what_it_began_with(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no runtime gives this model's outputs"):
        settle_runtime(digits(), run=tmp_path, candidates=())
    (tmp_path / "runtime.json").write_text(json.dumps({"asked": "auto", "runtime": "openvino", "why": "it was fast"}))
    task, choice = settle_runtime(digits(), run=tmp_path, candidates=())
    assert task.hardware.runtime == "openvino"
    assert task.hardware.profile_name == "x86-64-openvino"
    assert choice is not None
    (tmp_path / "runtime.json").write_text('{"runtime": 3}')
    with pytest.raises(IntegrityError, match=r"runtime.json should say which runtime was chosen"):
        settle_runtime(digits(), run=tmp_path)


class Wrong(TorchRuntime):
    """Very fast, and wrong."""

    name = "wrong"

    def load(self, path: Path, **options: Any) -> Any:
        class Session:
            def run(self, inputs: Any) -> torch.Tensor:
                return torch.zeros(len(inputs), 10)

        return Session()


def test_a_fast_runtime_with_other_outputs_is_not_taken() -> None:
    with isolated_registries():
        register_runtime(Wrong())
        task, choice = settle_runtime(digits(), candidates=("wrong", "torch"))
    assert task.hardware.runtime == "torch"
    assert choice is not None
    assert "Out: wrong fp32: its outputs are off by 100.0% of their size" in choice["why"]
    assert [each["runtime"] for each in choice["tried"]] == ["wrong", "torch"]
