"""docs/glossary.md and CHANGELOG.md: their paths and class names exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

FOLDERS = ("hardware_profiles", "compressors", "evaluators", "search", "benchmarks", "src/paredown/testing")


@pytest.fixture(scope="module")
def classes(repository: Path) -> set[str]:
    trees = [
        ast.parse(path.read_text(encoding="utf-8"))
        for folder in FOLDERS
        for path in (repository / folder).rglob("*.py")
    ]
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


@pytest.fixture(scope="module")
def rows(repository: Path) -> list[tuple[str, str, str]]:
    text = (repository / "docs" / "glossary.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| (.*?) \| (.*) \| (.*?) \|$", text, re.MULTILINE)[1:]
    assert len(found) > 40
    return found


def test_every_path_is_there(rows: list[tuple[str, str, str]], repository: Path) -> None:
    for term, _, where in rows:
        for path in re.findall(r"`([^`]+)`", where):
            at = repository / path if "/" in path else repository / "docs" / path
            assert at.exists(), f"{term}: {path}"


def test_every_class_is_there(rows: list[tuple[str, str, str]], classes: set[str]) -> None:
    named = {word for term, meaning, _ in rows for word in re.findall(r"`([A-Z][a-z]+[A-Za-z]*)`", term + meaning)}
    assert len(named) > 15
    assert sorted(named - classes) == []


def test_terms_are_in_order(rows: list[tuple[str, str, str]]) -> None:
    terms = [term.lower() for term, _, _ in rows]
    assert terms == sorted(terms)


def test_the_new_names_of_the_changelog_exist(repository: Path, classes: set[str]) -> None:
    text = (repository / "CHANGELOG.md").read_text(encoding="utf-8").partition("### Changed: names")[2]
    table = re.findall(r"^\| `(?P<before>.*)` .*\| (`.*`).* \|$", text, re.MULTILINE)
    new = {name.split(".")[-1] for _, now in table for name in re.findall(r"`([\w.]+)`", now)}
    assert sorted(name for name in new if name[0].isupper() and name not in classes) == []
