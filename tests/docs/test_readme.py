"""README: its commands, Python blocks and task run as they are printed, and its paths and options exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

from paredown.cli import main
from paredown.cli._app import app
from paredown.compressors import load_model
from paredown.digits.model import digits_net
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


def test_every_command_and_option_in_it_exists(repository: Path) -> None:
    """Also those of blocks that are not run: their arguments are names in capitals."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    known = {name: {o for p in command.params for o in p.opts} for name, command in commands.items()}
    lines = [line for block in _blocks(repository, "(?:sh)?") for line in block.splitlines()]
    used = [re.split(r"\s{3,}|\s#", line)[0].split() for line in lines if line.startswith("paredown ")]
    assert {words[1] for words in used} == set(known)
    for _, command, *words in used:
        assert {word.strip("[]") for word in words if word.startswith(("-", "[-"))} <= known[command], command


def test_the_search_in_python_runs(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    block, _ = _blocks(repository, "python")
    exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "from-python" / "manifest.json").exists()


def test_the_parts_compose_without_a_task_file(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _, block = _blocks(repository, "python")
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    front = [(t.metrics["bytes"].value, t.metrics["accuracy"].value) for t in names["front"]]  # type: ignore[attr-defined]
    assert len(front) >= 5
    assert sorted(front) == sorted(front, key=lambda point: point[1])  # more bytes, more accuracy
    assert max(accuracy for _, accuracy in front) > 0.95
    specs = load_model(tmp_path / "composed.safetensors", digits_net())
    assert {spec.activation_bits for spec in specs.values()} == {8}
    assert "'accuracy': Measurement(" in capsys.readouterr().out


def test_the_task_is_a_task(repository: Path, tmp_path: Path) -> None:
    (block,) = _blocks(repository, "toml")
    task = Task.from_dict(tomllib.loads(block), base_dir=tmp_path)
    assert task.space.sparsity == (0.0, 0.5)
    assert task.budget.time == 1800


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_link_leads_somewhere(repository: Path, page: str) -> None:
    text = (repository / page).read_text(encoding="utf-8")
    for path in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert (repository / path).exists(), path


def test_every_exit_code_is_named(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    assert "0 done; 1 failed; 2 bad input, named; 3 nothing met the limits" in text
    assert "130 interrupted" in text


def test_the_checks_in_contributing_pass(repository: Path) -> None:
    text = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        exec(compile(block, "CONTRIBUTING.md", "exec"), {})
