"""docs/architecture.md: its paths and folders exist, and its picture agrees with the imports.

The recipes on the page are run by `tests/extension`.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import paredown.testing

FOLDERS = ("hardware_profiles", "compressors", "evaluators", "search")


@pytest.fixture(scope="module")
def text(repository: Path) -> str:
    return (repository / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def paths(text: str) -> set[str]:
    """Paths in backticks, outside code blocks and the description of a run's folder."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    prose = re.sub(r"\n## The folder of a run\n.*?(?=\n## )", "", prose, flags=re.DOTALL)
    return set(re.findall(r"`([\w/-]+/|(?:[\w-]+/)+[\w.-]+)`", prose))


def test_every_path_is_there(paths: set[str], repository: Path) -> None:
    assert len(paths) > 100
    assert [path for path in sorted(paths) if not (repository / path).exists()] == []


def test_every_folder_is_on_the_page(paths: set[str], repository: Path) -> None:
    product = {path.parent for folder in FOLDERS for path in (repository / folder).rglob("*.py")}
    face = {path.parent for path in (repository / "src" / "paredown").glob("*/*.py") if not path.parent.is_symlink()}
    top = {repository / name for name in ("tests", "benchmarks", "examples", "docs")}
    folders = {f"{path.relative_to(repository)}/" for path in product | face | top}
    assert sorted(folders - paths) == []


def test_a_new_part_has_one_place_and_a_check_that_exists(text: str, repository: Path) -> None:
    section = text.partition("## Where does a new … go?\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*) \| (.*) \| (.*) \|$", section, re.MULTILINE)[1:]
    assert len(rows) > 15
    for part, place, check in rows:
        assert re.search(r"`[\w/]+(?:/|\.py)`", place), part
        for suite in re.findall(r"check_\w+", check):
            assert suite in paredown.testing.__all__, part


def test_the_picture_agrees_with_the_imports(text: str, repository: Path) -> None:
    """A folder imports from lower lines of the picture only. `tests/test_layers.py` is stricter."""
    picture = re.findall(r"```\n(src/paredown/ .*?)```", text, re.DOTALL)[0]
    line_of: dict[tuple[str, str], int] = {}
    package = ""
    for number, line in enumerate(picture.splitlines()):
        package = re.match(r"([a-z_]+)/", line).group(1) if re.match(r"[a-z_]+/ ", line) else package  # type: ignore[union-attr]
        for word in re.findall(r"[a-z]+", line[20:59]):
            if (repository / package / word).is_dir():
                line_of[package, word] = number
    assert len(line_of) > 35
    for (package, folder), number in line_of.items():
        for other in _folders_imported(repository / package / folder, package):
            if (package, other) in line_of and other != folder:
                assert line_of[package, other] > number, f"{package}/{folder} imports {other}"
    drawn = {folder for package, folder in line_of if package == "search"}
    assert drawn == {path.parent.name for path in (repository / "search").glob("*/__init__.py")}


def _folders_imported(root: Path, package: str) -> set[str]:
    """Folders of the same package that a file under `root` imports."""
    found = set()
    for path in root.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 2 and node.module:
                found.add(node.module.split(".")[0])
    return found


def test_a_folder_knows_whom_it_says(text: str, repository: Path) -> None:
    rows = re.findall(r"^\| `([\w/]+)/` \| [^|]* \| ([^|]*) \|$", text.partition("\n## The rules")[0], re.MULTILINE)
    stated = {folder: set(re.findall(r"`(\w+)`", knows)) for folder, knows in rows}
    assert stated["hardware_profiles"] == stated["compressors"] == set()
    assert [knows for folder, knows in rows if folder == "search"] == ["the other three"]
    stated["search"] = set(FOLDERS) - {"search"}
    for folder in FOLDERS:
        assert _known_to(repository / folder, folder) == stated[folder]


def _known_to(root: Path, folder: str) -> set[str]:
    """The other folders that a file in this one imports. Every file may import `errors` and the version."""
    known = set()
    for path in root.rglob("*.py"):
        package = ("paredown", folder, *path.relative_to(root).parent.parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                module = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
                names = module[1:2] if module[1:2] != [""] else [alias.name for alias in node.names]
                known.update(names)
    return known & {*FOLDERS, "cli", "testing", "digits"} - {folder}
