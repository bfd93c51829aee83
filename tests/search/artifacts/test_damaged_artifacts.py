"""Damage and lies, at random: whatever is done to an artifact's files, it is used, or refused in a line with why."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import paredown
from paredown.cli import main
from paredown.compressors import trace_anatomy
from paredown.errors import InputError, IntegrityError, ParedownError
from paredown.search import Task, apply_config, diff, verify_artifact
from paredown.search._verify_artifact import MeasuredAgain, check_artifact
from paredown.search.artifacts import Artifact
from paredown.search.artifacts._digests import digests_of
from paredown.search.space import assignment_of
from paredown.search.task import load_task_data, load_task_model

TINY = Path(__file__).parents[1] / "tiny"
WEIRD: tuple[Any, ...] = (
    None, True, -1, 0, 3.5, 1e308, float("nan"), 10**30, "", "x", "\0", "../x", [], ["a"], [1, 2], {}, {"a": 1},
)  # fmt: skip
N = 250


@pytest.fixture(scope="module")
def task() -> Task:
    return Task.from_dict(
        {
            "model": {"factory": "tiny.py:model"},
            "data": {"factory": "tiny.py:data"},
            "hardware": {"runtime": "torch", "latency_seconds": 0.02},
            "mlflow": {"enabled": False},
        },
        base_dir=TINY,
    )


@pytest.fixture(scope="module")
def good(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    layers = {"first": {"weight_bits": 4, "activation_bits": 8}, "second": {"weight_bits": 3, "sparsity": 0.8}}
    return apply_config({"schema_version": 2, "layers": layers}, task, tmp_path_factory.mktemp("good") / "artifact")


def unmeasured(artifact: Artifact, *_: Any) -> MeasuredAgain:
    """The claims as measurements: `check_artifact` then starts no process."""
    return MeasuredAgain(metrics=dict(artifact.claims), no_original="not looked for")


def copied(good: Path, tmp_path: Path) -> Path:
    shutil.rmtree(tmp_path / "bad", ignore_errors=True)
    shutil.copytree(good, tmp_path / "bad")
    return tmp_path / "bad"


def outcome(use: Callable[[], object]) -> str:
    """ "used", or the name of the error, whose text is one line that says something."""
    try:
        use()
    except ParedownError as error:
        return type(error).__name__ if len(str(error)) > 30 and "\n" not in str(error) else f"says {error}"
    return "used"


OUTCOMES = {"used", "IntegrityError", "InputError", "ConfigError", "TaskError"}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def mutated(data: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """With a value exchanged, left out or added, in a part that is drawn first."""
    data = json.loads(json.dumps(data))
    top = rng.choice(list(data))
    *way, last = rng.choice([path for path in places(data) if path[0] == top])
    at: Any = data
    for key in way:
        at = at[key]
    if rng.random() < 0.2:
        del at[last]
    elif rng.random() < 0.1 and isinstance(at, dict):
        at["surprise"] = 1
    else:
        at[last] = rng.choice(WEIRD)
    return data


def lying(whole: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A mutated manifest; in two of three its digests are made anew, so that what it says is believed."""
    data = mutated(whole, rng)
    if rng.random() < 2 / 3 and isinstance(data.get("claims"), dict) and "digests" in data:
        data["digests"] = digests_of(data)
    return data


def test_flipped_and_cut_files(task: Task, good: Path, tmp_path: Path) -> None:
    """Whole files are read before anything is believed; a manifest whose damage is no contradiction is another one."""
    seen: Counter[str] = Counter()
    for seed in range(N):
        rng, bad = random.Random(seed), copied(good, tmp_path)
        name = rng.choice(["manifest.json", "model.safetensors", "config.json"])
        data = bytearray((bad / name).read_bytes())
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        else:
            for _ in range(rng.choice([1, 1, 3])):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        if data == (good / name).read_bytes():
            continue
        (bad / name).write_bytes(bytes(data))
        seen[outcome(lambda bad=bad: diff(bad, good))] += 1
        seen[outcome(lambda bad=bad: paredown.load(bad, lambda: load_task_model(task)))] += 1
        if name == "model.safetensors":
            alone = outcome(lambda bad=bad: paredown.load(bad / "model.safetensors", lambda: load_task_model(task)))
            assert alone == "IntegrityError", seed
    assert set(seen) <= OUTCOMES
    assert seen["used"] < N / 2 < N < seen["IntegrityError"], seen


def test_manifests_that_lie(task: Task, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = json.loads((good / "manifest.json").read_text())
    seen: Counter[str] = Counter()
    for seed in range(N):
        bad = copied(good, tmp_path)
        (bad / "manifest.json").write_text(json.dumps(lying(whole, random.Random(seed))))
        seen[outcome(lambda bad=bad: diff(bad, good))] += 1
        seen[outcome(lambda bad=bad: check_artifact(bad, task=task, measure=unmeasured))] += 1
        seen[outcome(lambda bad=bad: verify_artifact(bad))] += 1
        if seed % 5 == 0:
            for command in (["diff", str(bad), str(good)], ["verify", str(bad)]):
                assert main(command) in (0, 1, 2)
                assert "Traceback" not in capsys.readouterr().err
    assert set(seen) <= OUTCOMES
    assert min(seen["used"], seen["IntegrityError"], seen["InputError"]) > 20, seen


def test_configs_that_lie(task: Task, good: Path, tmp_path: Path) -> None:
    anatomy = trace_anatomy(load_task_model(task), load_task_data(task).report.take(1).inputs)
    whole = json.loads((good / "config.json").read_text())
    path, seen = tmp_path / "config.json", Counter[str]()
    for seed in range(N):
        data = mutated(whole, random.Random(seed))
        path.write_text(json.dumps(data))
        seen[outcome(lambda: diff(path, good))] += 1
        seen[outcome(lambda data=data: assignment_of(data, anatomy))] += 1
    assert set(seen) <= OUTCOMES
    assert min(seen["used"], seen["ConfigError"]) > 20, seen


def test_data_that_is_not_described(good: Path, tmp_path: Path) -> None:
    bad = copied(good, tmp_path)
    data = json.loads((bad / "manifest.json").read_text())
    data["data"]["report"] = 3
    (bad / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(IntegrityError, match=r"data\.report must say sha256 and n of the samples, got 3"):
        diff(bad, good)


def test_a_format_and_a_runtime_that_there_are_not(task: Task, good: Path, tmp_path: Path) -> None:
    whole = json.loads((good / "manifest.json").read_text())
    for change, said in (
        ({"runtime": "onnxrt"}, "a runtime that is not known here: unknown runtime 'onnxrt'; known are torch"),
        ({"format": "onnyx"}, "has the format 'onnyx', and known are .*onnx"),
    ):
        bad = copied(good, tmp_path)
        lie = whole | change
        (bad / "manifest.json").write_text(json.dumps(lie | {"digests": digests_of(lie)}))
        with pytest.raises(InputError, match=said):
            verify_artifact(bad, task=task)
