"""The names of `import paredown`, and the one that is a package and a function at once."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import paredown
from paredown._module import CallableModule, make_callable


@pytest.mark.parametrize("name", paredown.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(paredown, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'serach'"):
        paredown.serach  # noqa: B018


def test_dir_lists_the_public_names() -> None:
    assert set(paredown.__all__) <= set(dir(paredown))


@pytest.mark.parametrize(
    "before",
    [
        "",
        "from paredown.search import Task;",
        "import paredown.search;",
        "paredown.Task;",
        "from paredown import search;",
    ],
)
def test_search_is_a_package_and_a_function_whatever_was_imported_first(repository: Path, before: str) -> None:
    code = f"import paredown; {before} assert callable(paredown.search); assert paredown.search.Task is paredown.Task"
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(repository / "src")}, check=True, timeout=120)


def test_a_callable_module_calls_its_function_and_is_pickled_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("paredown.double")
    module.double = lambda x, *, plus=0: 2 * x + plus  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "paredown.double", module)
    make_callable("paredown.double")
    assert isinstance(module, CallableModule)
    assert module(20, plus=2) == 42
    assert pickle.loads(pickle.dumps(module)) is module
