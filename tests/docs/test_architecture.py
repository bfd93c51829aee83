"""docs/architecture.md says what is so: its paths are there, and the folders know whom it says (its recipes:
tests/extension)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

FOLDERS = ("hardware_profiles", "compressors", "evaluators", "search")


@pytest.fixture(scope="module")
def text(repository: Path) -> str:
    return (repository / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_every_path_is_there(text: str, repository: Path) -> None:
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    paths = set(re.findall(r"`([\w/-]+/|(?:[\w-]+/)+[\w.-]+)`", prose))
    assert len(paths) > 25
    quantization = repository / "compressors"
    assert not [path for path in paths if not (repository / path).exists() and not (quantization / path).exists()]


def test_a_folder_knows_whom_it_says(text: str, repository: Path) -> None:
    rows = re.findall(r"^\| `([\w/]+)/` \| .* \| (.*) \|$", text, re.MULTILINE)
    stated = {folder: set(re.findall(r"`(\w+)`", knows)) for folder, knows in rows}
    assert stated["hardware_profiles"] == stated["compressors"] == set()
    assert [knows for folder, knows in rows if folder == "search"] == ["the other three"]
    stated["search"] = set(FOLDERS) - {"search"}
    for folder in FOLDERS:
        assert _known_to(repository / folder, folder) == stated[folder]


def _known_to(root: Path, folder: str) -> set[str]:
    """The other folders that a file in this one imports; `errors` and the version are everybody's."""
    known = set()
    for path in root.rglob("*.py"):
        package = ("paredown", folder, *path.relative_to(root).parent.parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                module = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
                names = module[1:2] if module[1:2] != [""] else [alias.name for alias in node.names]
                known.update(names)
    return known & {*FOLDERS, "cli", "testing", "digits"} - {folder}
