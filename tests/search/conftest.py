"""A task that runs in a second, for whoever tests the driver and what stands around it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from paredown.search import Front, SensitivityTable, Task
from paredown.search._search import run_search
from paredown.search.phases import (
    Clock,
    CostModel,
    JobRunner,
    TableInputs,
    TablePolicy,
    TrialFactory,
    build_store,
    evaluate_baselines,
    explore,
    measure_table,
    record_facts,
)
from paredown.search.problem import EvaluationContext, Problem, prepare
from paredown.search.run import LedgerRecorder, State, Stopwatch, StoredRun, create_run
from paredown.search.workers import InProcess, Pool

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


@pytest.fixture(scope="session")
def search_unverified() -> Callable[..., Front]:
    """`search` for tests that look at trials alone: it verifies no points, which takes a process of some seconds."""
    return partial(run_search, verify=lambda inputs: None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Everything that the phases of a search are given; `costs` and `trials` only after the store and the baselines."""

    run: StoredRun
    problem: Problem
    recorder: LedgerRecorder
    runner: JobRunner
    costs: CostModel
    trials: TrialFactory

    @property
    def state(self) -> State:
        return self.recorder.state

    @property
    def pool(self) -> Pool:
        return self.runner.pool

    def measure_table(self, *, clock: Clock | None = None, **policy: Any) -> SensitivityTable | None:
        """The table phase, by the rules of a `TablePolicy` with these fields, and by another clock."""
        runner = self.runner if clock is None else replace(self.runner, clock=clock)
        return measure_table(
            TableInputs(
                costs=self.costs, limits=self.trials.limits, runner=runner, recorder=self.recorder,
                policy=TablePolicy(**policy),
            )
        )  # fmt: skip

    def explore(self, table: SensitivityTable | None = None, **options: Any) -> None:
        """The exploration phase; `options` are keywords of `explore`."""
        explore(self.trials, self.runner, self.recorder, table, **options)


@pytest.fixture
def open_session() -> Callable[..., AbstractContextManager[Session]]:
    """`with open_session(task, path) as session`: a run in `path`, new or gone on with, up to its baselines.

    pool           makes the workers of an evaluation context; by default this process
    screened_from  as `evaluate_baselines` has it
    now            the clock that the budget goes by
    """

    @contextmanager
    def opened(
        task: Task,
        path: Path,
        *,
        pool: Callable[[EvaluationContext], Pool] = InProcess,
        screened_from: int = 12,
        now: Callable[[], float] = time.monotonic,
    ) -> Iterator[Session]:
        run, ledger = create_run(path / "run", task)
        with ledger:
            problem = prepare(task, store=path / "store")
            watch = Stopwatch(before_s=run.state.spent_s, now=now)
            recorder = LedgerRecorder(run.state, task.budget, ledger=ledger, watch=watch)
            clock = Clock(budget=task.budget, state=run.state, watch=watch, stopping=threading.Event(), run=run.path)
            runner = JobRunner(pool=pool(problem.context), clock=clock)
            costs = build_store(problem, runner, recorder, folder=run.path)
            record_facts(run, costs, recorder)
            trials = evaluate_baselines(costs, runner, recorder, screened_from=screened_from)
            yield Session(run=run, problem=problem, recorder=recorder, runner=runner, costs=costs, trials=trials)

    return opened
