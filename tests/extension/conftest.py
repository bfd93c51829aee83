"""The recipes of docs/architecture.md, each written to files outside the package, as a reader would do it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from paredown.search import Task
from paredown.testing import isolated_registries


@pytest.fixture(autouse=True)
def _isolated() -> Iterator[None]:
    with isolated_registries():
        yield


@pytest.fixture
def recipe(repository: Path, tmp_path: Path) -> Callable[..., Task]:
    """`recipe("A metric", "budget.trials=2")`: a task on the tiny model with what the section under this heading says.

    Its files lie in a folder that is on no path.
    """
    tiny = repository / "tests" / "search" / "tiny" / "tiny.py"

    def make(heading: str, *overrides: str) -> Task:
        folder = tmp_path / "outside"
        folder.mkdir()
        shutil.copy(tiny, folder)
        text = (repository / "docs" / "architecture.md").read_text(encoding="utf-8")
        section = text.partition(f"### {heading}\n")[2].partition("\n### ")[0]
        (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
        (toml,) = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
        (folder / code.split()[1]).write_text(code)
        return Task.from_dict(_merged(_tiny(), tomllib.loads(toml)), base_dir=folder).with_overrides(overrides)

    return make


def _tiny() -> dict[str, Any]:
    return {
        "model": {"factory": "tiny.py:model"},
        "data": {"factory": "tiny.py:data", "calibration": 40, "search": 160, "report": 200},
        "space": {"weight_bits": [2, 4, 32]},
        "hardware": {"runtime": "torch", "latency_seconds": 0.02},
        "search": {"table_samples": 32},
        "budget": {"trials": 4},
        "mlflow": {"enabled": False},
    }


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    both = {key: _merged(one[key], other[key]) for key in one.keys() & other.keys() if isinstance(one[key], dict)}
    return {**one, **other, **both}


@pytest.fixture
def verified_elsewhere(repository: Path) -> Callable[[Path], dict[str, Any]]:
    """`paredown verify ARTIFACT --task RUN --json`, of an artifact in a run, in a process that has paredown and nothing
    of this one."""

    def verify(artifact: Path) -> dict[str, Any]:
        run = artifact.parent.parent
        command = [sys.executable, "-m", "paredown", "verify", str(artifact), "--task", str(run), "--json"]
        environment = {**os.environ, "PYTHONPATH": str(repository / "src")}
        done = subprocess.run(command, env=environment, cwd=artifact, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return verify
