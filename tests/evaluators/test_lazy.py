"""`Measurement` is had without torch; the rest comes when it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import paredown.evaluators


def test_a_measurement_needs_no_torch(repository: Path) -> None:
    code = (
        "import sys; from paredown.evaluators import Measurement; "
        "heavy = [name for name in ('torch', 'numpy', 'pydantic', 'onnxruntime', 'openvino') if name in sys.modules]; "
        "sys.exit(','.join(heavy) or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(repository / "src"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there() -> None:
    for name in paredown.evaluators.__all__:
        assert getattr(paredown.evaluators, name) is not None
    assert {name for names in paredown.evaluators._HOMES.values() for name in names} | {"Measurement", "Source"} == set(
        paredown.evaluators.__all__
    )
    assert dir(paredown.evaluators) == sorted(paredown.evaluators.__all__)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Mesurement'"):
        _ = paredown.evaluators.Mesurement
