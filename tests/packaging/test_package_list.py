"""pyproject.toml lists every package and every data file by hand, and nothing can be forgotten."""

from __future__ import annotations

import fnmatch
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

IGNORED = {"__pycache__"}


@pytest.fixture(scope="module")
def tool(repository: Path) -> dict[str, Any]:
    document = tomllib.loads((repository / "pyproject.toml").read_text())
    setuptools: dict[str, Any] = document["tool"]["setuptools"]
    return setuptools


def test_the_listed_packages_are_those_on_disk(repository: Path, tool: dict[str, Any]) -> None:
    assert sorted(tool["packages"]) == sorted(packages_on_disk(repository, tool["package-dir"]))


def test_every_folder_with_code_is_a_package(repository: Path, tool: dict[str, Any]) -> None:
    packages = packages_on_disk(repository, tool["package-dir"])
    orphans = [folder for folder in packages.values() if not (folder / "__init__.py").is_file()]
    assert not orphans, "folders with Python files and no __init__.py"


def test_each_mapped_folder_is_also_a_relative_symlink(repository: Path, tool: dict[str, Any]) -> None:
    mapped = {name: folder for name, folder in tool["package-dir"].items() if name != "paredown"}
    assert mapped == {f"paredown.{name}": name for name in ("search", "compressors", "evaluators", "hardware_profiles")}
    for folder in mapped.values():
        link = repository / "src" / "paredown" / folder
        assert os.readlink(link) == f"../../{folder}"


def test_every_data_file_matches_a_pattern_of_its_package(repository: Path, tool: dict[str, Any]) -> None:
    patterns = tool["package-data"]
    for package, folder in packages_on_disk(repository, tool["package-dir"]).items():
        for path in data_files(folder):
            name = path.relative_to(folder).as_posix()
            assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns.get(package, [])), (
                f"{package} holds {name}, which no pattern of [tool.setuptools.package-data] takes into the wheel"
            )


def test_every_pattern_matches_a_file(repository: Path, tool: dict[str, Any]) -> None:
    packages = packages_on_disk(repository, tool["package-dir"])
    for package, patterns in tool["package-data"].items():
        for pattern in patterns:
            assert list(packages[package].glob(pattern)), f"{package}: no file matches {pattern}"


def test_a_forgotten_package_is_seen(tmp_path: Path) -> None:
    """The comparison above can fail: a folder that nobody listed, and one without code, which is no package."""
    for name in ("src/paredown", "search/new", "search/notes"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("src/paredown/__init__.py", "search/__init__.py", "search/new/_algorithm.py", "search/notes/card.txt"):
        (tmp_path / name).touch()
    found = packages_on_disk(tmp_path, {"paredown": "src/paredown", "paredown.search": "search"})
    assert sorted(found) == ["paredown", "paredown.search", "paredown.search.new"]


def packages_on_disk(root: Path, package_dir: dict[str, str]) -> dict[str, Path]:
    """Every folder with a Python file below the mapped ones, by its import name; symlinks are not followed."""
    found = {}
    for package, folder in package_dir.items():
        for path, folders, files in os.walk(root / folder):
            folders[:] = [name for name in folders if name not in IGNORED and not (Path(path) / name).is_symlink()]
            if any(name.endswith(".py") for name in files):
                relative = Path(path).relative_to(root / folder)
                found[".".join([package, *relative.parts])] = Path(path)
    return found


def data_files(folder: Path) -> list[Path]:
    """What lies in a package's folder, or in folders of data below it, and is neither code nor documentation."""
    files = []
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or path.name in IGNORED:
            continue
        if path.is_file() and path.suffix not in {".py", ".pyc", ".md"}:
            files.append(path)
        if path.is_dir() and not any(path.rglob("*.py")):
            files.extend(below for below in sorted(path.rglob("*")) if below.is_file() and below.suffix != ".md")
    return files
