"""The architecture as a test: which folder may import which, and no circle of files anywhere.

Imports are read from the syntax tree: those inside functions and under `TYPE_CHECKING` count too.
`docs/architecture.md` draws the same layers.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

FOLDERS = {
    "paredown.hardware_profiles": "hardware_profiles",
    "paredown.compressors": "compressors",
    "paredown.evaluators": "evaluators",
    "paredown.search": "search",
    "paredown": "src/paredown",
}
"""Package -> its folder; longer names first."""

BELOW: Mapping[str, tuple[str, ...]] = {
    # the parts of the package that know nothing: errors, printed commands, lazy exports, names of array types
    "base": (),
    "hardware_profiles": ("base",),
    "compressors.values": ("base",),
    "compressors.files": ("base",),
    "compressors.registry": ("compressors.values",),
    "compressors.quantization": ("compressors.registry",),
    "compressors.sparse_formats": ("compressors.files",),
    "compressors.anatomy": ("compressors.quantization",),
    "compressors.sparsity": ("compressors.anatomy", "compressors.files"),
    "compressors.lowrank": ("compressors.anatomy",),
    "compressors.calibration": ("compressors.anatomy", "compressors.files"),
    "compressors.structure": ("compressors.calibration",),
    "compressors.preparation": ("compressors.calibration",),
    "compressors.variants": (
        "compressors.calibration", "compressors.sparsity", "compressors.lowrank", "compressors.sparse_formats",
    ),
    "compressors.storage": ("compressors.variants",),
    "compressors.repair": ("compressors.variants", "compressors.structure"),
    "compressors": ("compressors.storage", "compressors.repair", "compressors.preparation"),
    "evaluators.values": ("compressors", "hardware_profiles"),
    "evaluators.quality": ("evaluators.values",),
    "evaluators.costs": ("evaluators.values",),
    "evaluators.energy": ("evaluators.costs",),
    "evaluators.sensitivity": ("evaluators.quality",),
    "evaluators.runtimes": ("evaluators.values",),
    "evaluators.memory": ("evaluators.runtimes", "evaluators.costs"),
    "evaluators.latency": ("evaluators.runtimes",),
    "evaluators.prediction": ("evaluators.latency",),
    "evaluators": (
        "evaluators.energy", "evaluators.sensitivity", "evaluators.memory", "evaluators.prediction",
    ),
    "search.values": ("evaluators",),
    "search.task": ("search.values",),
    "search.allocation": ("search.values",),
    "search.devices": ("search.task",),
    "search.searchers": ("search.allocation",),
    "search.space": ("search.devices",),
    "search.run": ("search.task",),
    "search.problem": ("search.space", "search.searchers"),
    "search.front": ("search.run", "search.space"),
    "search.evaluation": ("search.problem",),
    "search.report": ("search.front",),
    "search.resolution": ("search.front", "search.searchers"),
    "search.workers": ("search.evaluation",),
    "search.mirrors": ("search.report",),
    "search.artifacts": ("search.workers", "search.run"),
    "search.phases": ("search.artifacts", "search.front"),
    "search.plans": ("search.phases",),
    "search": ("search.plans", "search.mirrors", "search.resolution"),
    "face": ("search",),
}  # fmt: skip
"""Layer -> the layers right below it. A layer may import those, and whatever lies below them."""

BASE = ("errors", "_cards", "_command", "_lazy", "_module", "_arrays", "_version")


def modules_of(root: Path) -> dict[str, Path]:
    """Name of every module of the product -> its file."""
    found: dict[str, Path] = {}
    for package, folder in FOLDERS.items():
        for path in sorted((root / folder).rglob("*.py")):
            relative = path.relative_to(root / folder)
            if package == "paredown" and relative.parts[0] in (
                "search",
                "compressors",
                "evaluators",
                "hardware_profiles",
            ):
                continue
            parts = [*relative.parts[:-1], *([] if path.stem == "__init__" else [path.stem])]
            found[".".join([package, *parts])] = path
    return found


def imports_of(module: str, path: Path, known: Iterable[str]) -> Iterator[str]:
    """The modules of the product that a file imports, anywhere in it."""
    package = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        if isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            for alias in node.names:
                target = f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base
                if target in known:
                    yield target


def arrows_of(modules: Mapping[str, Path]) -> dict[str, set[str]]:
    """Module -> the modules that it imports."""
    return {name: set(imports_of(name, path, modules)) - {name} for name, path in modules.items()}


def layer_of(module: str, modules: Mapping[str, Path]) -> str:
    """The layer that a module belongs to."""
    parts = module.split(".")[1:]
    if not parts:
        return "face"
    top = parts[0]
    if top not in ("search", "compressors", "evaluators", "hardware_profiles"):
        return "base" if top in BASE else "face"
    if len(parts) == 1 or top == "hardware_profiles":
        return top
    is_folder = len(parts) > 2 or modules[module].stem == "__init__"
    return f"{top}.{parts[1]}" if is_folder else top


def allowed(below: Mapping[str, tuple[str, ...]] = BELOW) -> dict[str, set[str]]:
    """Layer -> every layer that it may import, itself included."""
    reach: dict[str, set[str]] = {}
    for layer in below:  # each is listed after those below it
        reach[layer] = {layer, "base"}.union(*(reach[name] for name in below[layer]))
    return reach


def upward(modules: Mapping[str, Path], arrows: Mapping[str, set[str]]) -> list[str]:
    """The imports that no layer allows, as `importer -> imported`."""
    reach = allowed()
    return [
        f"{name} -> {target} ({layer_of(name, modules)} may not import {layer_of(target, modules)})"
        for name, targets in arrows.items()
        for target in sorted(targets)
        if layer_of(target, modules) not in reach[layer_of(name, modules)]
    ]


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one file (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(arrows[name]):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            members = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(members) > 1:
                found.append(sorted(members))

    for name in arrows:
        if name not in index:
            visit(name)
    return found


@pytest.fixture(scope="module")
def modules(repository: Path) -> dict[str, Path]:
    return modules_of(repository)


@pytest.fixture(scope="module")
def arrows(modules: dict[str, Path]) -> dict[str, set[str]]:
    return arrows_of(modules)


def test_every_folder_has_a_layer(modules: dict[str, Path]) -> None:
    assert {layer_of(name, modules) for name in modules} <= set(BELOW)


def test_no_import_points_up(modules: dict[str, Path], arrows: dict[str, set[str]]) -> None:
    assert upward(modules, arrows) == []


def test_there_is_no_circle_of_files(arrows: dict[str, set[str]]) -> None:
    assert circles(arrows) == []


def test_ray_optuna_and_mlflow_are_imported_in_one_place_each(modules: dict[str, Path]) -> None:
    places = {
        "ray": ("search.workers._ray",),
        "mlflow": ("search.mirrors.",),
        "optuna": ("search.mirrors.", "search.searchers._optuna"),
    }
    for library, homes in places.items():
        for name, path in modules.items():
            tree = ast.parse(path.read_text(encoding="utf-8"))
            roots = {
                (alias.name if isinstance(node, ast.Import) else node.module or "").split(".")[0]
                for node in ast.walk(tree)
                if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and not node.level)
                for alias in node.names
            }
            if library in roots:
                assert name.startswith(tuple(f"paredown.{home}" for home in homes)), f"{name} imports {library}"


@pytest.mark.parametrize(
    "line",
    [
        "from ..front import Front",
        "def late():\n    from ..phases import CostModel",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..run import StoredRun",
        "import paredown.search.mirrors",
        "from ... import search",
    ],
)
def test_an_upward_import_would_be_seen(modules: dict[str, Path], tmp_path: Path, line: str) -> None:
    """Shows that the test can fail: a file of the lowest room of the search imports a room above it."""
    planted = tmp_path / "_planted.py"
    planted.write_text(line + "\n")
    name = "paredown.search.values._planted"
    found = upward({**modules, name: planted}, {name: set(imports_of(name, planted, modules))})
    assert len(found) == 1
    assert found[0].startswith("paredown.search.values._planted -> paredown.search")


def test_a_circle_would_be_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
