"""Candidates are screened on the first samples, and what is on the front there is seen on the whole split."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paredown.evaluators import Measurement
from paredown.search import Candidate, Completed, EarlyStopped, Failed, Front, LowFidelity, Task, Trial, open_run
from paredown.search.evaluation import AnyOutcome, EvaluateCandidate, EvaluateLowFidelity, Worker
from paredown.search.phases import Promotion, as_screened, screening_samples
from paredown.search.problem import EvaluationContext, prepare
from paredown.search.values import Objective, trial_from_record, trial_to_record
from paredown.search.workers import InProcess

MakeTask = Callable[..., Task]
OpenSitting = Callable[..., AbstractContextManager[Any]]
GUIDE = (Objective(name="divergence"), Objective(name="bytes"))
SCREENED = ("search.screen=40", "search.searcher=random", "budget.trials=30")


def _screened(number: int, divergence: float, n_bytes: float, **more: Measurement) -> LowFidelity:
    metrics = {"divergence": Measurement(value=divergence), "bytes": Measurement(value=n_bytes), **more}
    return LowFidelity(number=number, candidate=Candidate(levels=(number,)), kind="mixed", metrics=metrics, samples=40)


def _promoted(trial: LowFidelity) -> Completed:
    return Completed(number=100 + trial.number, candidate=trial.candidate, kind="mixed", metrics=trial.metrics)


def test_the_front_of_the_first_samples_is_due_and_nothing_else() -> None:
    promotion = Promotion(GUIDE, ["bytes"], [{}])
    assert promotion.next() is None
    trials = [_screened(0, 1.0, 100), _screened(1, 0.1, 200), _screened(2, 0.5, 200), _screened(3, 0.01, 300)]
    for trial in trials:
        promotion.add(trial)
    assert promotion.n_due() == 3
    promotion.asked(as_completed(trials[1]))
    assert promotion.n_due() == 2
    promotion.add(_promoted(trials[3]))
    assert promotion.n_due() == 1
    found = promotion.next()
    assert found is not None
    assert found.number == 0
    promotion.add(
        EarlyStopped(
            number=9, candidate=trials[0].candidate, kind="mixed", reason="", metrics=trials[0].metrics, beaten_by=3,
            samples=80,
        )
    )  # fmt: skip
    assert promotion.next() is None


def as_completed(trial: LowFidelity) -> Completed:
    view = as_screened(trial)
    assert isinstance(view, Completed)
    return view


def test_the_next_one_adds_most_to_those_seen_on_all() -> None:
    promotion = Promotion(GUIDE, ["bytes"], [{}])
    ends = [_screened(0, 1.0, 100), _screened(4, 0.01, 500)]
    for trial in (*ends, _screened(1, 0.9, 110), _screened(2, 0.1, 300), _screened(3, 0.011, 490)):
        promotion.add(trial)
    for end in ends:
        promotion.add(_promoted(end))
    found = promotion.next()
    assert found is not None
    assert found.number == 2


def test_what_surely_breaks_a_limit_is_not_due() -> None:
    unsure = Measurement(value=0.85, low=0.80, high=0.92)
    bad = Measurement(value=0.5, low=0.4, high=0.6)
    promotion = Promotion(GUIDE, ["bytes"], [{"accuracy": (0.9, None), "bytes": (None, 450.0)}])
    promotion.add(_screened(0, 1.0, 100, accuracy=unsure))
    promotion.add(_screened(1, 0.5, 200, accuracy=bad))
    promotion.add(_screened(2, 0.1, 500, accuracy=unsure))
    assert promotion.n_due() == 1
    found = promotion.next()
    assert found is not None
    assert found.number == 0


def test_so_many_are_promoted_and_no_more() -> None:
    promotion = Promotion(GUIDE, ["bytes"], [{}])
    for i in range(140):  # all of them on the front
        promotion.add(_screened(i, 1.0 / (i + 1), float(i)))
    assert promotion.n_due() == 20
    promoted = []
    while (found := promotion.next()) is not None:
        promoted.append(found.number)
        promotion.asked(found)
        promotion.add(replace(found, number=1000 + found.number, screen={}))
    assert len(promoted) == len(set(promoted)) == 20
    assert max(promoted) - min(promoted) > 100  # of all budgets


def test_a_searcher_is_told_of_the_first_samples_alone() -> None:
    first, whole = {"divergence": Measurement(value=2.0)}, {"divergence": Measurement(value=1.0)}
    both = {**whole, "bytes": Measurement(value=7.0)}
    baseline = Completed(number=0, candidate=Candidate(levels=(0,)), kind="uniform", metrics=both, screen=first)
    told = as_screened(baseline)
    assert isinstance(told, Completed)
    assert {name: m.value for name, m in told.metrics.items()} == {"divergence": 2.0, "bytes": 7.0}
    assert as_screened(replace(baseline, kind="mixed")) is None  # it was told when it was screened
    failed = Failed(number=1, candidate=Candidate(levels=(1,)), kind="mixed", reason="x", seed=0)
    assert as_screened(failed) is failed


@pytest.mark.parametrize(
    "trial",
    [
        _screened(3, 1.0, 5.0),
        Completed(
            number=0, candidate=Candidate(levels=(0,)), kind="uniform", metrics={"bytes": Measurement(value=1.0)},
            screen={"bytes": Measurement(value=2.0)},
        ),
    ],
)  # fmt: skip
def test_both_survive_the_ledger(trial: Trial) -> None:
    assert trial_from_record(trial_to_record(trial)) == trial


def test_screened_metrics_are_those_of_the_first_samples(tiny_task: MakeTask, tmp_path: Path) -> None:
    worker = Worker(prepare(tiny_task(), store=tmp_path / "store").context)
    candidate = Candidate(levels=(1,) * len(worker.context.space))
    screened = worker.evaluate_low_fidelity(candidate, 40)
    assert screened.samples == 40
    whole = worker.evaluate(candidate, quality="divergence", n_low_fidelity=40)
    assert whole.metrics == pytest.approx(worker.evaluate(candidate, quality="divergence").metrics)
    assert whole.low_fidelity["accuracy"] == screened.metrics["accuracy"]
    assert whole.low_fidelity["divergence"].value == pytest.approx(screened.metrics["divergence"].value, rel=1e-6)


def test_a_run_with_screening(tiny_task: MakeTask, tmp_path: Path, search_unverified: Callable[..., Front]) -> None:
    search_unverified(tiny_task(*SCREENED), out=tmp_path / "run", workers=0)
    run = open_run(tmp_path / "run")
    screened = [t for t in run.trials if isinstance(t, LowFidelity)]
    seen = [t for t in run.trials if t.kind == "mixed" and not isinstance(t, LowFidelity)]
    assert len(screened) == run.state.n_mixed == 30
    assert {t.samples for t in screened} == {40}
    assert 0 < len(seen) < 30
    assert {t.candidate for t in seen} <= {t.candidate for t in screened}
    assert len({t.number for t in run.trials}) == len(run.trials)
    for trial in run.trials:
        if isinstance(trial, Completed):
            assert trial.metrics["divergence"].n == 160
            assert trial.screen["divergence"].n == 40
    status = run.status()["trials"]
    assert (status["mixed"], status["screened"]) == (30, 30)
    on_front = {p["id"] for p in run.front().to_dict()["points"] if p["kind"] == "mixed"}
    assert on_front <= {f"t{t.number}" for t in seen}
    before = run.trials
    search_unverified(tiny_task(*SCREENED), out=tmp_path / "run", workers=0)
    assert open_run(tmp_path / "run").trials == before  # nothing is left to be done


def test_the_same_seed_and_a_stop_in_between_give_the_same(
    tiny_task: MakeTask, open_session: OpenSitting, tmp_path: Path
) -> None:
    task = tiny_task(*SCREENED[:1], "budget.trials=20")
    whole = _explored(open_session(task, tmp_path / "whole"), stop_after=None)
    parts = _explored(open_session(task, tmp_path / "parts"), stop_after=9)
    parts = _explored(open_session(task, tmp_path / "parts"), stop_after=None)
    assert {t.candidate for t in parts if isinstance(t, LowFidelity)} == {
        t.candidate for t in whole if isinstance(t, LowFidelity)
    }
    assert sum(isinstance(t, Completed) and t.kind == "mixed" for t in parts) > 0


def _explored(opened: AbstractContextManager[Any], *, stop_after: int | None) -> list[Trial]:
    with opened as session:

        def stop() -> None:
            if stop_after is not None and session.state.n_mixed >= stop_after:
                session.runner.clock.stopping.set()

        session.explore(after_each=stop, promote_every=6)
        return list(session.state.trials)


class Timed(InProcess):
    """Workers by whose clock a look at the first samples takes a second, one at all four, and nothing else any time."""

    def __init__(self, context: EvaluationContext) -> None:
        super().__init__(context)
        self.now = 0.0

    def wait(self, timeout_s: float | None = None) -> list[AnyOutcome]:
        outcomes = []
        for outcome in super().wait(timeout_s):
            seconds = {EvaluateLowFidelity: 1.0, EvaluateCandidate: 4.0}.get(type(outcome.job), 0.0)
            self.now += seconds
            outcomes.append(replace(outcome, seconds=seconds))
        return outcomes


def test_time_is_kept_for_those_that_are_due(tiny_task: MakeTask, open_session: OpenSitting, tmp_path: Path) -> None:
    pools: list[Timed] = []

    def pool(context: EvaluationContext) -> Timed:
        pools.append(Timed(context))
        return pools[-1]

    task = tiny_task("search.screen=40", "search.searcher=random", "budget.trials=100000", "budget.time=100s")
    with open_session(task, tmp_path, pool=pool, now=lambda: pools[0].now if pools else 0.0) as session:
        session.explore()
        facts = session.run.facts()
        promotion = Promotion(facts.guide, ["bytes"], [facts.limits])
        for trial in session.state.trials:
            promotion.add(trial)
        n_screened = sum(isinstance(t, LowFidelity) for t in session.state.trials)
        assert 20 < n_screened < 60  # the time has ended it, and not the space
        assert promotion.n_due() == 0
        assert 90.0 <= pools[0].now <= 110.0


@pytest.mark.parametrize(
    ("samples", "asked", "n"),
    [(160, None, 0), (4096, None, 256), (1024, None, 128), (160, 40, 40), (160, 160, 0), (4096, 0, 0)],
)
def test_only_large_splits_are_screened_by_themselves(samples: int, asked: int | None, n: int) -> None:
    assert screening_samples(samples, asked) == n
