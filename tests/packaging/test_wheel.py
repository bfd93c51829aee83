"""A wheel, built from a copy of the checkout, with symlinks or without, and installed out of its sight."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from .conftest import Environment, build

FOLDERS = ("search", "compressors", "evaluators", "hardware_profiles")

IMPORT_EVERYTHING = """
import importlib, json, os, pkgutil, sys
folders = %r
for package in map(importlib.import_module, ["paredown", *(f"paredown.{folder}" for folder in folders)]):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
wanted = {"paredown", *folders}
ours = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in wanted}
print(json.dumps({name: os.path.realpath(module.__file__) for name, module in ours.items() if module.__file__}))
"""


def test_a_checkout_without_symlinks_gives_the_same_wheel(
    wheel: Path, checkout_without_symlinks: Path, tmp_path: Path
) -> None:
    assert contents(build(checkout_without_symlinks, "wheel", tmp_path)) == contents(wheel)


def test_the_source_distribution_gives_the_same_wheel(wheel: Path, checkout: Path, tmp_path: Path) -> None:
    with tarfile.open(build(checkout, "sdist", tmp_path)) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert (unpacked / "tests" / "packaging" / "conftest.py").is_file()
    assert contents(build(unpacked, "wheel", tmp_path / "again")) == contents(wheel)


def test_the_wheel_holds_what_the_embedded_default_needs(wheel: Path) -> None:
    names = contents(wheel)
    wanted = ["digits/task.toml", "digits/digits.safetensors", "py.typed", *(f"{name}/__init__.py" for name in FOLDERS)]
    assert {f"paredown/{name}" for name in wanted} <= names.keys()
    assert not [name for name in names if name.startswith(("tests/", "examples/", *FOLDERS))]


def test_every_module_of_an_installed_wheel_can_be_imported_without_the_extras(
    installed: Environment, tmp_path: Path
) -> None:
    files = import_everything(installed, tmp_path)
    assert {f"paredown.{name}" for name in FOLDERS} <= files.keys()
    assert all(Path(file).is_relative_to(installed.site_packages.resolve()) for file in files.values()), files


@pytest.mark.parametrize("kind", ["checkout", "checkout_without_symlinks"])
def test_an_editable_install_imports_each_file_once(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    """With symlinks Python's own finder meets them first; without, setuptools' finder serves; never both."""
    source: Path = request.getfixturevalue(kind)
    environment = Environment.create(tmp_path / "venv", build(source, "editable", tmp_path), extras=True)
    files = import_everything(environment, tmp_path)
    assert len(set(files.values())) == len(files), "a file was imported under two names"
    assert Path(files["paredown.search"]) == (source / "search" / "__init__.py").resolve()
    assert not set(FOLDERS) & files.keys(), "a folder was imported as a package of its own"


def test_the_embedded_default_is_searched_from_an_installed_wheel(installed: Environment, tmp_path: Path) -> None:
    """End to end, outside the checkout, with the core dependencies alone: search, and read the front again."""
    run = tmp_path / "run"
    searched = installed.run(
        "-m", "paredown", "search", "--trials", "6", "--workers", "0", "--out", str(run), cwd=tmp_path, timeout=280
    )
    assert searched.returncode == 0, searched.stdout + searched.stderr
    shown = installed.run("-m", "paredown", "front", str(run), "--json", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    points = json.loads(shown.stdout)["points"]
    assert {"original", "uniform"} <= {point["kind"] for point in points}
    assert [point["kind"] for point in points if point["verified"]].count("original") == 1
    assert any(point["verified"] and point["kind"] != "original" for point in points)


def test_the_command_is_installed(installed: Environment) -> None:
    assert (installed.folder / "bin" / "paredown").is_file()


def import_everything(environment: Environment, cwd: Path) -> dict[str, str]:
    """Module name to file, of every module of paredown and of any that has the name of one of its folders."""
    done = environment.run("-c", IMPORT_EVERYTHING % (FOLDERS,), cwd=cwd)
    assert done.returncode == 0, done.stderr
    files: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return files


def contents(wheel: Path) -> dict[str, int]:
    """File name to CRC, without the record, which repeats the others."""
    with zipfile.ZipFile(wheel) as archive:
        return {item.filename: item.CRC for item in archive.infolist() if not item.filename.endswith("/RECORD")}
