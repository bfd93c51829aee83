"""The examples in the docstrings of the package and its public folders are run as they stand."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import shutil
from pathlib import Path
from types import ModuleType

import pytest

import paredown

TASK = """
[model]
factory = "tiny.py:model"

[data]
factory = "tiny.py:data"
calibration = 40
search = 160
report = 200

[quality]
max_loss = 1.0

[objectives]
names = ["accuracy", "bytes"]

[space]
weight_bits = [4, 8, 32]
activation_bits = [32]

[hardware]
runtime = "torch"
latency_seconds = 0.02

[budget]
trials = 6

[mlflow]
enabled = false
"""


def public_packages() -> list[ModuleType]:
    """`paredown` and every package in it."""
    found = pkgutil.walk_packages(paredown.__path__, "paredown.")
    return [paredown, *(importlib.import_module(each.name) for each in found if each.ispkg)]


def examples_of(module: ModuleType) -> doctest.DocTest:
    return doctest.DocTestParser().get_doctest(module.__doc__ or "", {}, module.__name__, module.__file__, 0)


def test_they_run(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with a `task.toml` and nothing else that they name."""
    shutil.copy(repository / "tests" / "search" / "tiny" / "tiny.py", tmp_path)
    (tmp_path / "task.toml").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    run = []
    for module in public_packages():
        examples = examples_of(module)
        if examples.examples:
            results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples)
            assert results.failed == 0, module.__name__
            run.append(module.__name__)
    assert "paredown" in run
    assert (tmp_path / "small" / "manifest.json").is_file()


def test_no_example_is_left_out() -> None:
    """An indented line of Python that is no doctest would be an example that nobody runs."""
    for module in public_packages():
        for line in (module.__doc__ or "").splitlines():
            if line.startswith("    ") and "(" in line and line.strip().endswith(")"):
                assert line.strip().startswith((">>>", "...")) or "Path(" in line, f"{module.__name__}: {line}"
