"""`explain` names the kernels of a point's layers; here on a run whose runtime does not say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import paredown
from paredown.evaluators.runtimes import _ran
from paredown.search import Task, open_run
from paredown.search._kernels import add_kernels


def test_kernels_stand_in_the_rows_and_what_ran_otherwise_is_named(
    tiny_task: Callable[..., Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tiny_task("budget.trials=1", "space.weight_bits=[8]", "space.activation_bits=[8]")
    paredown.search(task, out=tmp_path / "run", workers=0)
    run = open_run(tmp_path / "run")
    number = next(n for n, found in run.state.verified.items() if n and found.reason is None)
    rows = run.explain(f"t{number}")
    assert add_kernels(run, f"t{number}", rows) == {}
    assert not any("ran" in row for row in rows)
    first, second = rows[0]["layers"][0], rows[1]["layers"][0]
    monkeypatch.setattr(_ran, "kernels_by_layer", lambda *args, **options: {first: "QLinearConv", second: "FusedConv"})
    assert list(add_kernels(run, f"t{number}", rows)) == [second]
    assert (rows[0]["ran"], rows[1]["ran"]) == ("QLinearConv", "FusedConv")
    assert add_kernels(run, "t999", rows) == {}  # never verified
