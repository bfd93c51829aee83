"""`import paredown` and `paredown --help` need none of the heavy packages. Their time is a benchmark, not a test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "torch", "ray", "mlflow", "optuna", "sklearn", "scipy", "pandas", "matplotlib", "plotly",
    "onnx", "onnxruntime", "onnxscript", "openvino", "transformers", "torch_pruning",
)  # fmt: skip

REPORT = f"\nimport sys; print('HEAVY', *(name for name in {HEAVY!r} if name in sys.modules))"

HELP = """
import runpy, sys
sys.argv = ["paredown", "--help"]
try:
    runpy.run_module("paredown", run_name="__main__")
except SystemExit as stop:
    assert stop.code in (0, None), stop.code
"""


@pytest.mark.parametrize("code", ["import paredown; paredown.__version__; dir(paredown)", HELP], ids=["import", "help"])
def test_nothing_heavy_is_imported(repository: Path, code: str) -> None:
    assert heavy_after(repository, code) == []


def test_a_heavy_import_is_seen(repository: Path) -> None:
    assert "sklearn" in heavy_after(repository, "import sklearn")


def test_compressors_run_where_only_torch_and_numpy_are_installed(repository: Path) -> None:
    others = ("pydantic", "safetensors", "typer", "rich", *(name for name in HEAVY if name != "torch"))
    compress_without = f"""
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {others!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
import torch  # before the others are hidden: it looks for some of them itself
sys.modules.update(dict.fromkeys([name for name in sys.modules if name.partition(".")[0] in {others!r}]))
sys.meta_path.insert(0, Hidden())
import paredown.compressors as compressors
assert all(getattr(compressors, name) is not None for name in compressors.__all__)
"""
    assert heavy_after(repository, compress_without) == ["torch"]


def heavy_after(repository: Path, code: str) -> list[str]:
    """The heavy packages that a fresh interpreter has imported after running `code`."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code + REPORT],
        env={"PYTHONPATH": str(repository / "src"), "PATH": ""},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]
