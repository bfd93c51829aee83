"""A run as the product makes it, without what comes after the search: ledger, store and baselines, in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paredown.search import SensitivityTable, Task
from paredown.search.phases import (
    Clock,
    JobRunner,
    TableInputs,
    TrialFactory,
    build_store,
    evaluate_baselines,
    explore,
    measure_table,
    record_facts,
)
from paredown.search.problem import Problem, prepare
from paredown.search.run import Ledger, LedgerRecorder, State, create_run
from paredown.search.workers import open_pool

from .meter import Meter
from .traces import Box


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """A run whose costs are known, and whose baselines are in the ledger.

    ledger   every record, those of an earlier session included
    runner   the jobs are run in this process; `runner.clock.stopping` ends a search
    trials   makes trials, and knows the costs of the space
    """

    problem: Problem
    ledger: Ledger
    recorder: LedgerRecorder
    runner: JobRunner
    trials: TrialFactory
    meter: Meter

    @property
    def state(self) -> State:
        """State of the run."""
        return self.recorder.state

    def measure_table(self, evaluations: float) -> SensitivityTable | None:
        """Measure the sensitivity table of a search that may cost so many full evaluations."""
        trials = self.trials
        inputs = TableInputs(costs=trials.costs, limits=trials.limits, runner=self.runner, recorder=self.recorder)
        return measure_table(inputs, evaluations)

    def explore(self, table: SensitivityTable | None, after_each: Callable[[], None]) -> None:
        """Search until the budget is spent; `after_each` is called after each trial."""
        explore(self.trials, self.runner, self.recorder, table, after_each=after_each)

    @property
    def full(self) -> int:
        """Samples of a full evaluation."""
        return len(self.problem.context.split)

    @property
    def table_samples(self) -> int:
        return self.problem.task.search.table_samples

    def box(self, floor: float, ceiling: float) -> Box:
        """From the cheapest to the dearest candidate of the space."""
        rows, fixed = self.trials.costs.rows["bytes"], self.trials.costs.fixed["bytes"]
        return Box(
            floor=floor, ceiling=ceiling, cheapest=fixed + sum(map(min, rows)), dearest=fixed + sum(map(max, rows))
        )


@contextmanager
def opened(task: Task, folder: Path, store: Path) -> Iterator[Workbench]:
    """The run in `folder`, new or to be gone on with. The store may be shared by all runs, in several processes."""
    run, ledger = create_run(folder, task)
    with ledger:
        recorder = LedgerRecorder(run.state, task.budget, ledger=ledger)
        with recorder.watch.charge("load"):
            problem = prepare(task, store=store)
        clock = Clock(
            budget=task.budget, state=run.state, watch=recorder.watch, stopping=threading.Event(), run=run.path
        )  # fmt: skip
        with open_pool(problem, workers=0) as pool:
            runner = JobRunner(pool=pool, clock=clock)
            costs = build_store(problem, runner, recorder, folder=run.path)
            record_facts(run, costs, recorder)
            trials = evaluate_baselines(costs, runner, recorder)
            full = len(problem.context.split)
            meter = Meter(ledger.records, full=full, table_samples=task.search.table_samples)
            yield Workbench(
                problem=problem, ledger=ledger, recorder=recorder, runner=runner, trials=trials, meter=meter
            )  # fmt: skip
            recorder.times()


def seconds_of(records: list[dict[str, Any]]) -> float:
    """Wall clock that the run took, all sittings together."""
    return max((float(record.get("spent_s", 0.0)) for record in records), default=0.0)
