"""What the README says to type is typed here, as it stands."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from paredown.cli import main
from paredown.search import Task


def _blocks(repository: Path, language: str) -> list[str]:
    text = (repository / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def test_the_commands_run_in_order(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = _blocks(repository, "sh")
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert len(lines) >= 6
    for program, *arguments in lines:
        assert program == "paredown"
        code = main(arguments)
        out, err = capfd.readouterr()
        assert code == 0, f"{arguments}: {err}"
        assert out or arguments[0] == "search"


def test_the_python_runs(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = _blocks(repository, "python")
    exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "from-python" / "manifest.json").exists()


def test_the_task_is_a_task(repository: Path, tmp_path: Path) -> None:
    (block,) = _blocks(repository, "toml")
    task = Task.from_dict(tomllib.loads(block), base_dir=tmp_path)
    assert task.space.sparsity == (0.0, 0.5)
    assert task.budget.time == 1800


def test_every_command_and_picture_exists(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"\]\(([^)#]+)\)", text):
        assert (repository / path).exists(), path


def test_every_exit_code_is_named(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    assert "0 done; 1 failed; 2 bad input, named; 3 nothing met the limits" in text
    assert "130 interrupted" in text
