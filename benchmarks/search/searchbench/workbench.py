"""A run as the product makes it, without what comes after the search: ledger, store and baselines, in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paredown.search import Task
from paredown.search.phases import SearchSession, build_store, evaluate_baselines
from paredown.search.problem import prepare
from paredown.search.run import Ledger, Recorder, create_run
from paredown.search.workers import InProcess

from .meter import Meter
from .traces import Box


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """sitting  the run: its costs are known, and its baselines are in the ledger
    ledger   every record, those of an earlier sitting included
    """

    session: SearchSession
    ledger: Ledger
    meter: Meter

    @property
    def full(self) -> int:
        """Samples of a full evaluation."""
        return len(self.session.problem.context.split)

    @property
    def table_samples(self) -> int:
        return self.session.task.search.table_samples

    def box(self, floor: float, ceiling: float) -> Box:
        """From the cheapest to the dearest candidate of the space."""
        rows, fixed = self.session.costs["bytes"], self.session.fixed["bytes"]
        return Box(
            floor=floor, ceiling=ceiling, cheapest=fixed + sum(map(min, rows)), dearest=fixed + sum(map(max, rows))
        )


@contextmanager
def opened(task: Task, folder: Path, store: Path) -> Iterator[Workbench]:
    """The run in `folder`, new or to be gone on with. The store may be shared by all runs, in several processes."""
    run, ledger = create_run(folder, task)
    with ledger:
        recorder = Recorder(run, ledger, None)
        with recorder.watch.charge("load"):
            problem = prepare(task, store=store)
        recorder.objectives = problem.objectives
        pool = InProcess(problem.context)
        try:
            session = SearchSession(run=run, recorder=recorder, problem=problem, pool=pool, stopping=threading.Event())
            build_store(session)
            evaluate_baselines(session)
            full = len(problem.context.split)
            meter = Meter(ledger.records, full=full, table_samples=task.search.table_samples)
            yield Workbench(session=session, ledger=ledger, meter=meter)
            recorder.times()
        finally:
            pool.close()


def seconds_of(records: list[dict[str, Any]]) -> float:
    """Wall clock that the run took, all sittings together."""
    return max((float(record.get("spent_s", 0.0)) for record in records), default=0.0)
