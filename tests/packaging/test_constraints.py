"""constraints.txt pins what the development install needs, exactly and with no index of its own."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

LEFT_OUT = ("executorch",)
"""Its extra is no part of the development install."""


@pytest.fixture(scope="module")
def pins(repository: Path) -> dict[str, Version]:
    lines = [line for line in (repository / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    requirements = [Requirement(line) for line in lines]  # an option such as --index-url does not parse
    found = {}
    for requirement in requirements:
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"not an exact version: {requirement}"
        found[canonicalize_name(requirement.name)] = Version(specifier.version)  # a wildcard does not parse
    assert len(found) == len(requirements), "a package is pinned twice"
    return {str(name): version for name, version in found.items()}


def test_torch_is_pinned_first_and_without_a_build(pins: dict[str, Version]) -> None:
    assert next(iter(pins)) == "torch"
    assert pins["torch"].local is None, "a build such as +cpu exists on one index only"


def test_the_pins_satisfy_pyproject(repository: Path, pins: dict[str, Version]) -> None:
    for requirement in declared(repository):
        if requirement.name not in LEFT_OUT:
            assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_all_that_the_development_install_brings_is_pinned(repository: Path, pins: dict[str, Version]) -> None:
    missing = needed_here(repository) - pins.keys()
    assert not missing, "add these to constraints.txt, at the versions that `pip freeze` shows"


def declared(repository: Path) -> list[Requirement]:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    return [requirement for line in lines if (requirement := Requirement(line)).name != "paredown"]


def needed_here(repository: Path) -> set[str]:
    """The closure of the declared requirements in this environment, by canonical name."""
    todo = [requirement for requirement in declared(repository) if requirement.name not in LEFT_OUT]
    seen: set[tuple[str, str]] = set()
    while todo:
        requirement = todo.pop()
        for extra in ("", *requirement.extras):
            key = (str(canonicalize_name(requirement.name)), extra)
            if key in seen:
                continue
            seen.add(key)
            needs = [Requirement(line) for line in importlib.metadata.requires(requirement.name) or []]
            todo += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}
