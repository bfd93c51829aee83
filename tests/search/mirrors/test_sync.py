"""The mirrors' turns, and their troubles."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paredown.search import Front, Run, Task, open_run
from paredown.search.mirrors import Mirrors
from paredown.search.mirrors import _sync as _mirrors


def test_a_store_that_cannot_be_opened_is_noted_and_the_rest_is_written(
    tiny_task: Callable[..., Task],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    search_unverified: Callable[..., Front],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://at-all")
    task = tiny_task("budget.trials=3", "mlflow.enabled=true")
    search_unverified(task, out=tmp_path / "run", workers=0)
    run = open_run(tmp_path / "run")
    assert run.state.ended == "done"
    (note,) = [note for note in run.state.notes if "MLflow" in note]
    assert "nowhere" in note
    assert all((tmp_path / "run" / name).is_file() for name in ("optuna.log", "front.json", "trials.csv"))
    assert {"start mirrors", "mirrors", "evaluation", "store"} <= set(run.state.seconds)
    assert sum(run.state.seconds.values()) <= run.state.spent_s


def test_they_are_due_after_a_pause_that_grows_with_what_a_turn_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now, turn_s = 100.0, 0.5
    monkeypatch.setattr(_mirrors.time, "monotonic", lambda: now)

    class Busy(Mirrors):
        def _pages(self, final: bool) -> None:
            nonlocal now
            now += turn_s

        _study = _track = lambda self, final: None  # type: ignore[assignment]

    class State:
        trials = (object(),)

    fake: Any = type("FakeRun", (), {"state": State()})()
    run: Run = fake
    mirrors = Busy(run, lambda note: None)
    assert not mirrors.due
    now += _mirrors.LEAST_PAUSE_S
    assert mirrors.due
    mirrors.sync(final=False)
    assert not mirrors.due
    now += _mirrors.SHARE * 0.5 - 1.0
    assert not mirrors.due
    now += 1.0
    assert mirrors.due
    turn_s = 120.0  # a server that does not answer, say
    mirrors.sync(final=False)
    now += _mirrors.MOST_PAUSE_S
    assert mirrors.due
