"""Plugins: imported first, once, in every process; and what can be wrong with one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paredown.compressors import methods
from paredown.errors import TaskError
from paredown.evaluators import METRICS
from paredown.search import Task, open_run, search
from paredown.search.task import Plugins
from paredown.testing import isolated_registries

METHOD = """
from paredown.compressors import register_weight_method
from paredown.compressors.quantization import code_range

def clipped(matrix, bits):
    low, high = code_range(bits)
    scale = matrix.abs().amax(dim=1).clamp(min=1e-30) / high
    return (matrix / scale[:, None]).round().clamp(low, high).char(), scale

register_weight_method("clipped", clipped)
"""


@pytest.fixture(autouse=True)
def _isolated() -> Iterator[None]:
    with isolated_registries():
        yield


def task(folder: Path, *plugins: str) -> Task:
    return Task.from_dict({"data": {"factory": "a:b"}, "plugins": list(plugins)}, base_dir=folder)


def load(folder: Path, *plugins: str) -> None:
    Plugins.of(task(folder, *plugins)).load()


def refused(folder: Path, *plugins: str) -> str:
    with pytest.raises(TaskError) as caught:
        load(folder, *plugins)
    return str(caught.value)


def test_a_file_is_run_once_however_often_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(METHOD)
    load(tmp_path, "mine.py", "./mine.py")
    load(tmp_path, "mine.py")
    assert methods("weight")[-1] == "clipped"


def test_a_module_is_imported_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "paredown_test_plugin.py").write_text(METHOD)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "paredown_test_plugin", raising=False)
    load(tmp_path / "elsewhere", "paredown_test_plugin")
    load(tmp_path / "elsewhere", "paredown_test_plugin")
    assert "clipped" in methods("weight")


def test_they_are_imported_in_order(tmp_path: Path) -> None:
    register = "from paredown.evaluators import METRICS, Metric, register_metric\n{}\n"
    one = "register_metric(Metric(name='one', maximise=True, per_sample=lambda o, t, r: o[:, 0]))"
    (tmp_path / "one.py").write_text(register.format(one))
    (tmp_path / "two.py").write_text(register.format("METRICS['one']"))
    assert "KeyError: 'one'" in refused(tmp_path, "two.py", "one.py")
    assert "one" not in METRICS
    load(tmp_path, "one.py", "two.py")


def test_one_that_is_not_there(tmp_path: Path) -> None:
    assert refused(tmp_path, "gone.py").startswith("plugins[0] = 'gone.py': there is no file ")
    message = refused(tmp_path, "no_such_package.part")
    assert "plugins[0] = 'no_such_package.part': there is no module 'no_such_package'" in message
    assert "name a file beside the task: 'part.py'" in message


def test_one_that_raises(tmp_path: Path) -> None:
    (tmp_path / "ok.py").write_text("")
    (tmp_path / "bad.py").write_text("\nraise ValueError('no licence')\n")
    message = refused(tmp_path, "ok.py", "bad.py")
    assert "plugins[1] = 'bad.py'" in message
    assert message.endswith("raised ValueError: no licence (bad.py line 2)")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (METHOD.replace('"clipped"', '"affine"'), "there is a weight method 'affine' already"),
        (
            "from paredown.evaluators import METRICS, register_metric\nregister_metric(METRICS['accuracy'])",
            "a metric named 'accuracy' is registered already",
        ),
        (
            "from paredown.evaluators.runtimes import TorchRuntime, register_runtime\nregister_runtime(TorchRuntime())",
            "a runtime named 'torch' is registered already",
        ),
        (
            "from paredown.search import register_searcher\nregister_searcher('random', print)",
            "a searcher named 'random' is registered already",
        ),
    ],
)
def test_one_that_takes_a_name_that_is_taken(tmp_path: Path, code: str, says: str) -> None:
    (tmp_path / "mine.py").write_text(code)
    message = refused(tmp_path, "mine.py")
    assert "plugins[0] = 'mine.py'" in message
    assert says in message


def test_one_that_was_changed_needs_a_new_process(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(METHOD)
    load(tmp_path, "mine.py")
    (tmp_path / "mine.py").write_text(METHOD.replace("1e-30", "1e-20"))
    message = refused(tmp_path, "mine.py")
    assert "has changed since this process ran it" in message
    assert message.endswith("start a new process")


def test_the_names_are_part_of_what_makes_a_run_the_same(tmp_path: Path) -> None:
    assert task(tmp_path, "a.py").digest != task(tmp_path).digest
    assert task(tmp_path, "a.py").digest == task(tmp_path / "other", "a.py").digest
    assert Task.from_dict(task(tmp_path, "a.py").to_dict()).plugins == ("a.py",)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ('"mine.py"', "plugins must be a list, got 'mine.py'; write plugins = ['mine.py']"),
        (
            '["mine.py:method"]',
            "plugins must name files ('file.py') and modules ('package.module'), got 'mine.py:method'",
        ),
        ("[3]", "plugins[0] must be a string, got 3"),
    ],
)
def test_what_a_task_may_say(tmp_path: Path, value: str, says: str) -> None:
    path = tmp_path / "task.toml"
    path.write_text(f"plugins = {value}\n[data]\nfactory = 'a:b'\n")
    with pytest.raises(TaskError) as caught:
        Task.load(path)
    assert f"{path} line 1: {says}" in str(caught.value)


def test_it_stands_at_the_top_of_a_task(tmp_path: Path) -> None:
    path = tmp_path / "task.toml"
    path.write_text("[data]\nfactory = 'a:b'\nplugins = ['mine.py']\n")
    with pytest.raises(TaskError, match=r"data.plugins is not a known key; plugins stands at the top of the file"):
        Task.load(path)
    assert task(tmp_path, "a.py").with_overrides(['plugins=["b.py"]']).plugins == ("b.py",)


def test_a_search_that_cannot_load_one_says_so(tiny_task: Callable[..., Task], tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"plugins\[0\] = 'gone.py': there is no file"):
        search(tiny_task('plugins=["gone.py"]'), out=tmp_path / "run", workers=0)
    assert not open_run(tmp_path / "run").trials


def test_the_fresh_process_imports_them_though_the_model_was_handed_over(
    tiny_task: Callable[..., Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime with a graph in its artifact needs no model source; the module that registers it must come all the
    same,
    also from a folder that only this process has on its path."""
    from paredown.search.task import load_task_model

    model = load_task_model(tiny_task())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "paredown_test_runtime", raising=False)
    (tmp_path / "paredown_test_runtime.py").write_text(
        "from paredown.evaluators.runtimes import OnnxRuntime, register_runtime\n"
        "class Mine(OnnxRuntime):\n    name = 'mine'\n"
        "register_runtime(Mine())\n"
    )
    overrides = ["hardware.runtime=mine", "hardware.profile=x86-64-onnxruntime", "budget.trials=1"]
    space = ["space.weight_bits=[8]", "space.activation_bits=[32]"]
    task = tiny_task('plugins=["paredown_test_runtime"]', *overrides, *space)
    front = search(task, model=model, out=tmp_path / "run", workers=0)
    assert front.original.verified, front.original.note


def test_ours_are_there_without_any(repository: Path) -> None:
    """A task without plugins imports nothing on their account."""
    code = "import sys; from pathlib import Path; from paredown.search.task._plugins import Plugins\n"
    code += "Plugins(references=(), base_dir=Path()).load(); sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(repository / "src")}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0
