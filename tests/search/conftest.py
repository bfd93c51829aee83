"""A task that runs in a second, for whoever tests the driver and what stands around it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paredown.search import Task

TINY = Path(__file__).parent / "tiny"


@pytest.fixture
def tiny_task() -> Callable[..., Task]:
    """`tiny_task("budget.trials=5", trouble="raise")`: the tiny task with overrides, its model misbehaving or not."""

    def make(*overrides: str, trouble: str | None = None) -> Task:
        data: dict[str, Any] = {
            "model": {"factory": "tiny.py:model", "args": {"trouble": trouble} if trouble else {}},
            "data": {"factory": "tiny.py:data", "calibration": 40, "search": 160, "report": 200},
            "space": {"weight_bits": [2, 4, 8, 32]},
            "hardware": {"runtime": "torch", "latency_seconds": 0.02},
            "search": {"table_samples": 32},
            "budget": {"trials": 12},
            "mlflow": {"enabled": False},
        }
        return Task.from_dict(data, base_dir=TINY).with_overrides(overrides)

    return make
