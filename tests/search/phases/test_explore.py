"""Ask, evaluate, tell: workers never wait while there is budget, and results come in any order."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from paredown.search import Candidate, Completed, EarlyStopped, SearchContext, Task, Trial, open_run
from paredown.search.evaluation import AnyJob, AnyOutcome, EvaluateCandidate, Outcome, Worker, run_job
from paredown.search.problem import EvaluationContext
from paredown.search.searchers import make_searcher

MakeTask = Callable[..., Task]


class Shuffled:
    """`capacity` jobs at a time, of which any one comes out first. Counts how often less than that was before it."""

    def __init__(self, context: EvaluationContext, capacity: int) -> None:
        self._worker, self._capacity = Worker(context), capacity
        self._jobs: list[AnyJob] = []
        self._random = random.Random(5)
        self.seen: list[int] = []
        self.die: set[int] = set()

    @property
    def idle(self) -> int:
        return self._capacity - len(self._jobs)

    @property
    def busy(self) -> int:
        return len(self._jobs)

    def submit(self, job: AnyJob) -> None:
        assert self.idle > 0
        self._jobs.append(job)

    def wait(self, timeout_s: float | None = None) -> list[AnyOutcome]:
        if not self._jobs:
            return []
        self.seen.append(len(self._jobs))
        job = self._jobs.pop(self._random.randrange(len(self._jobs)))
        if isinstance(job, EvaluateCandidate) and job.number in self.die and job.attempt == 1:
            return [Outcome(job=job, error="the worker died", fatal=True)]
        return [run_job(self._worker, job, {})]

    def close(self) -> None: ...


@pytest.fixture
def sit(open_session: Callable[..., Any], tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """A session at a new run of the task, with its store and baselines, and workers whose results are shuffled."""
    with ExitStack() as stack:

        def make(task: Task, capacity: int = 4) -> Any:
            pool = partial(Shuffled, capacity=capacity)
            session = stack.enter_context(open_session(task, tmp_path, pool=pool))
            assert isinstance(session.pool, Shuffled)
            session.pool.seen.clear()
            return session

        yield make


def test_workers_are_never_idle_while_there_is_budget(tiny_task: MakeTask, sit: Callable[..., Any]) -> None:
    session = sit(tiny_task("budget.trials=16", "search.searcher=random"))
    session.explore()
    assert isinstance(session.pool, Shuffled)
    assert session.pool.seen == [4] * 13 + [3, 2, 1]
    assert sorted(t.number for t in session.state.trials if t.kind == "mixed") != [
        t.number for t in session.state.trials if t.kind == "mixed"
    ]  # they came in another order
    assert session.state.n_mixed == 16


def test_a_trial_whose_worker_died_is_tried_again(tiny_task: MakeTask, sit: Callable[..., Any]) -> None:
    session = sit(tiny_task("budget.trials=8", "search.searcher=random"))
    assert isinstance(session.pool, Shuffled)
    numbers = [t.number for t in session.state.trials]
    session.pool.die = {max(numbers) + 2}
    session.explore()
    assert session.state.n_mixed == 8
    assert all(not hasattr(t, "attempts") for t in session.state.trials)


class _Watched:
    """A searcher, and everything that it is asked and told."""

    def __init__(self, inner: Any, context: SearchContext) -> None:
        self.inner, self.context = inner, context
        self.told: list[Trial] = []
        self.asked: list[Candidate] = []

    def ask(self, n: int) -> list[Candidate]:
        found: list[Candidate] = self.inner.ask(n)
        self.asked += found
        return found

    def tell(self, trials: Sequence[Trial]) -> None:
        self.told += trials
        self.inner.tell(trials)


class _Watching:
    """Makes searchers like `make_searcher`, and keeps them."""

    def __init__(self) -> None:
        self.made: list[_Watched] = []

    def __call__(self, name: str, context: SearchContext, params: Mapping[str, Any]) -> _Watched:
        self.made.append(_Watched(make_searcher(name, context, params), context))
        return self.made[-1]


def test_the_searcher_does_without_dropped_levels(tiny_task: MakeTask, sit: Callable[..., Any]) -> None:
    watching = _Watching()
    session = sit(tiny_task("budget.trials=10"))
    table = session.measure_table()
    assert table is not None
    gone = 1
    session.recorder.append({"type": "dropped", "levels": [[0, gone]]})
    session.explore(table, make=watching)
    (searcher,) = watching.made
    whole = session.problem.space
    assert searcher.context.space.n_levels == (whole.n_levels[0] - 1, *whole.n_levels[1:])
    mixed = [t for t in session.state.trials if t.kind == "mixed"]
    assert len(mixed) == 10
    assert all(t.candidate.levels[0] != gone for t in mixed)
    uniform = [t for t in session.state.trials if t.candidate.levels[0] == gone]
    assert uniform
    assert len(searcher.told) == len(session.state.trials) - len(uniform)
    for told in searcher.told:
        searcher.context.space.check(told.candidate)
        original = next(t for t in session.state.trials if t.number == told.number and t.kind == told.kind)
        specs = [g.levels[i] for g, i in zip(whole.groups, original.candidate.levels, strict=True)]
        inner = searcher.context.space.groups
        assert [g.levels[i] for g, i in zip(inner, told.candidate.levels, strict=True)] == specs


def test_races_are_told_of_like_any_trial(tiny_task: MakeTask, sit: Callable[..., Any]) -> None:
    watching = _Watching()
    session = sit(tiny_task("budget.trials=24", "search.searcher=random"))
    session.explore(make=watching)
    (searcher,) = watching.made
    assert {type(t) for t in searcher.told} == {Completed, EarlyStopped}
    assert len(searcher.told) == len(session.state.trials)


@pytest.mark.parametrize(("bits", "n"), [("[4, 8]", 0), ("[4, 8, 32]", 1)])
def test_the_original_is_told_only_where_the_space_has_it(
    sit: Callable[..., Any], tiny_task: MakeTask, bits: str, n: int
) -> None:
    """Elsewhere it bears the levels of another candidate, and its own bytes."""
    session = sit(tiny_task(f"space.weight_bits={bits}", "budget.trials=2"))
    told: list[Trial] = []

    class Listening:
        def __init__(self, *arguments: Any) -> None:
            self.inner = make_searcher(*arguments)
            self.ask, self.report = self.inner.ask, lambda: {"divergence": {"trust": 0.5}}

        def tell(self, trials: Sequence[Trial]) -> None:
            told.extend(trials)
            self.inner.tell(trials)

    session.explore(make=Listening)
    assert [trial.kind for trial in told].count("original") == n
    assert [trial.kind for trial in told].count("mixed") == 2
    assert session.state.searcher == {"divergence": {"trust": 0.5}}
    assert open_run(session.run.path).status()["searcher"] == session.state.searcher
