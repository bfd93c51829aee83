"""Keeps the mirrors up with the ledger: the Optuna study, MLflow, and the pages in the run's folder.

A mirror is never the truth. One that fails is noted once and tried again at the next turn; the search goes on.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ._bench import reason
from ._ledger import write_atomic
from ._run import Run

_LEAST_PAUSE_S = 15.0
_SHARE = 50.0
_STATUS = {"done": "FINISHED", "interrupted": "KILLED"}
"""How the ledger says that a run ended, in MLflow's words."""


class Mirrors:
    """`sync_now_and_then` is cheap to call after every trial: it works at most every 15 seconds, and at most a
    fiftieth of the time."""

    def __init__(self, run: Run, note: Callable[[str], None]) -> None:
        self._run, self._note = run, note
        self._mlflow: Any = None
        self._optuna: Any = None
        self._next = time.monotonic() + _LEAST_PAUSE_S

    def sync_now_and_then(self) -> None:
        if time.monotonic() >= self._next:
            self.sync(final=False)

    def sync(self, *, final: bool) -> None:
        if not self._run.state.trials:
            return  # stopped before there was anything to show
        start = time.monotonic()
        for name, work in (("pages", self._pages), ("Optuna study", self._study), ("MLflow run", self._track)):
            try:
                work(final)
            except Exception as exception:  # a mirror's trouble must not end the search; it is noted with its reason
                self._note(f"the {name} could not be written: {reason(exception)}; the ledger has everything")
        took = time.monotonic() - start
        self._next = time.monotonic() + max(_LEAST_PAUSE_S, _SHARE * took)

    def _pages(self, final: bool) -> None:
        from ._report import write_report

        front = self._run.front()
        write_atomic(self._run.path / "front.json", json.dumps(front.to_dict(), indent=1) + "\n")
        if final:
            write_report(self._run.path, front, self._run.trials, space=self._run.space)

    def _study(self, final: bool) -> None:
        from .mirrors._optuna import OptunaMirror

        facts = self._run.state.facts
        if self._optuna is None:
            from ._points import limits_from, objectives_from

            self._optuna = OptunaMirror(
                self._run.path / "optuna.log",
                space=self._run.space,
                objectives=objectives_from(facts["objectives"]),
                limits=limits_from(facts["limits"]),
            )
        self._optuna.sync(self._run.trials)

    def _track(self, final: bool) -> None:
        from .mirrors._mlflow import MlflowMirror

        task = self._run.task
        if not task.mlflow.enabled:
            return
        if self._mlflow is None:
            self._mlflow = MlflowMirror(
                tracking_uri(self._run.path),
                task.mlflow.experiment or f"paredown-{self._run.path.resolve().parent.name}",
                self._run.path,
                task.mlflow.children,
            )
        state = self._run.state
        self._mlflow.sync(
            task, self._run.space, state.trials, self._run.front(), timings=state.seconds, final=final,
            status=_STATUS.get(state.ended or "", "FAILED"), spent_s=state.spent_s,
        )  # fmt: skip


def tracking_uri(run: Path) -> str:
    """`MLFLOW_TRACKING_URI` where it is set, else an SQLite file beside the runs."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.resolve().parent / 'mlflow.db'}"
