"""A task that runs in a second, for whoever tests the driver and what stands around it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from paredown.search import Front, Task
from paredown.search._search import run_search
from paredown.search.phases import SearchSession, build_store, evaluate_baselines
from paredown.search.problem import EvaluationContext, prepare
from paredown.search.run import Recorder, create_run
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
    return partial(run_search, verify=lambda session: None)


@pytest.fixture
def open_session() -> Callable[..., AbstractContextManager[SearchSession]]:
    """`with open_session(task, path) as session`: a run in `path`, new or resumed, up to its baselines.

    pool        makes the workers from the context; by default this process
    groundwork  whether the store is built and the baselines are evaluated
    """

    @contextmanager
    def opened(
        task: Task, path: Path, *, pool: Callable[[EvaluationContext], Pool] = InProcess, groundwork: bool = True
    ) -> Iterator[SearchSession]:
        run, ledger = create_run(path / "run", task)
        with ledger:
            problem = prepare(task, store=path / "store")
            session = SearchSession(
                run=run, recorder=Recorder(run, ledger, None), problem=problem, pool=pool(problem.context),
                stopping=threading.Event(),
            )  # fmt: skip
            session.recorder.objectives = problem.objectives
            if groundwork:
                build_store(session)
                evaluate_baselines(session)
            yield session

    return opened
