"""Shared parts of the tests of exports: a compressed model and its outputs, and a process for other libraries."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paredown.compressors import (
    CompressedModel,
    LayerSpec,
    applicable,
    calibrate,
    compress,
    forward,
    trace_anatomy,
    weight_at,
)

Case = tuple[tuple[Any, ...], Tensor]


@pytest.fixture
def compressed() -> Callable[..., Case]:
    """(model, inputs, spec or fqn -> spec) -> (arguments of an export, what PyTorch computes)."""

    def make(model: nn.Module, inputs: Any, specs: LayerSpec | Mapping[str, LayerSpec]) -> Case:
        anatomy = trace_anatomy(model, inputs)
        calibration = calibrate(model, [inputs], anatomy, bits=(8, 4))
        wanted = specs if isinstance(specs, Mapping) else dict.fromkeys(anatomy.fqns, specs)
        assignment = {fqn: spec for fqn, spec in wanted.items() if not applicable(spec, anatomy[fqn])}
        variants = {
            fqn: compress(weight_at(model, fqn).detach(), spec, anatomy[fqn]) for fqn, spec in assignment.items()
        }
        with CompressedModel(model, anatomy, calibration).apply(assignment, variants), torch.no_grad():
            expected = forward(model, inputs)
        return (model, assignment, variants, calibration, inputs), expected

    return make


@pytest.fixture
def elsewhere(repository: Path) -> Callable[..., str]:
    """(packages, code, arguments) -> what a fresh process printed: other libraries warn, and here warnings are errors.

    Skips where one of the packages is not installed.
    """

    def run(packages: tuple[str, ...], code: str, *arguments: object) -> str:
        for package in packages:
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"needs {package}, which is no part of the development install: pip install {package}")
        path = os.pathsep.join([str(repository / "src"), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run
