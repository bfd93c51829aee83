"""Updates of the mirrors from the ledger: the Optuna study, MLflow, and the pages in the run's folder.

The ledger is the truth. A mirror that fails is noted and tried again at the next turn; the search goes on.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..front import front_of
from ..run import StoredRun, collector_off, write_atomic
from ..values import reason
from ._store_uri import sqlite_uri

if TYPE_CHECKING:
    from ._mlflow import MlflowMirror, Status
    from ._optuna import OptunaMirror

LEAST_PAUSE_S, MOST_PAUSE_S = 15.0, 1800.0
SHARE = 500.0
"""Ratio of a pause to the turn before it, within those bounds."""

_STATUS: dict[str, Status] = {"done": "FINISHED", "interrupted": "KILLED"}
"""End of a run in the ledger -> MLflow's status."""


class Mirrors:
    """The mirrors of one run.

    `due` is cheap to ask after every trial. Turns are at least 15 seconds apart, and so far that about a five-hundredth
    of the time goes into them, but at most half an hour.
    """

    def __init__(self, run: StoredRun, note: Callable[[str], None]) -> None:
        self._run, self._note = run, note
        self._mlflow: MlflowMirror | None = None
        self._optuna: OptunaMirror | None = None
        self._began = time.monotonic()
        self._next = self._began + LEAST_PAUSE_S

    @property
    def due(self) -> bool:
        """True when it is time for the next `sync`."""
        return time.monotonic() >= self._next

    def open(self) -> None:
        """Do the work that takes a while and needs no trial, while workers start. `sync` works without it too."""
        from ..report import _png as _picture

        with collector_off():
            self._try("pages", _picture.load)
            if self._run.task.mlflow.enabled:
                self._try("MLflow run", lambda: self._mlflow_mirror().connect())
        self._next = time.monotonic() + LEAST_PAUSE_S

    def sync(self, *, final: bool) -> None:
        """Bring every mirror up to date. `final`: the search has ended."""
        if not self._run.state.trials:
            return  # stopped before there was anything to show
        self._began = time.monotonic()
        for name, work in (("pages", self._pages), ("Optuna study", self._study), ("MLflow run", self._track)):
            self._try(name, functools.partial(work, final))
        pause = SHARE * (time.monotonic() - self._began)
        self._next = time.monotonic() + min(max(LEAST_PAUSE_S, pause), MOST_PAUSE_S)

    def _try(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as exception:  # a mirror's trouble must not end the search; it is noted with its reason
            self._note(f"the {name} could not be written: {reason(exception)}; the ledger has everything")

    def _pages(self, final: bool) -> None:
        from ..report import write_report

        front = front_of(self._run)
        write_atomic(self._run.path / "front.json", json.dumps(front.to_dict(), indent=1) + "\n")
        if final:
            write_report(self._run.path, front, self._run.trials, space=self._run.space)

    def _study(self, final: bool) -> None:
        from ._optuna import OptunaMirror

        if self._optuna is None:
            facts = self._run.facts()
            self._optuna = OptunaMirror(
                self._run.path / "optuna.log",
                space=facts.space,
                objectives=facts.objectives,
                limits=facts.limits,
            )
        self._optuna.sync(self._run.trials)

    def _track(self, final: bool) -> None:
        task, state = self._run.task, self._run.state
        if not task.mlflow.enabled:
            return
        self._mlflow_mirror().sync(
            task, self._run.space, state.trials, front_of(self._run), timings=self._seconds, final=final,
            status=_STATUS.get(state.ended or "", "FAILED"), spent_s=state.spent_s + time.monotonic() - self._began,
        )  # fmt: skip

    def _seconds(self) -> dict[str, float]:
        """Purpose -> seconds from the ledger, with the time of this turn so far."""
        seconds = dict(self._run.state.seconds)
        seconds["mirrors"] = seconds.get("mirrors", 0.0) + time.monotonic() - self._began
        return seconds

    def _mlflow_mirror(self) -> MlflowMirror:
        from ._mlflow import MlflowMirror

        if self._mlflow is None:
            task = self._run.task
            self._mlflow = MlflowMirror(
                tracking_uri(self._run.path),
                task.mlflow.experiment or f"paredown-{self._run.path.resolve().parent.name}",
                self._run.path,
                task.mlflow.children,
            )
        return self._mlflow


def tracking_uri(run: Path) -> str:
    """Address of the MLflow store: `MLFLOW_TRACKING_URI` where it is set, else an SQLite file beside the runs."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(run.resolve().parent / "mlflow.db")
