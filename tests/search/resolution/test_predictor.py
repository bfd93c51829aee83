"""Predictions of what was not tried, against the truth that a synthetic problem has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from paredown.evaluators import Measurement
from paredown.search import Candidate, Completed, EarlyStopped, Objective, Trial
from paredown.search.resolution import Predictor
from paredown.search.searchers import rank_correlation
from paredown.testing import SyntheticProblem

ACCURACY = Objective(name="accuracy", maximise=True)


def trials_of(problem: SyntheticProblem, n: int, *, seed: int = 0) -> list[Completed]:
    """The original and `n` random candidates, each of a random budget."""
    rng = np.random.default_rng(seed)
    n_levels = np.array(problem.space.n_levels)
    neutral = Candidate(levels=(0,) * len(n_levels))
    trials = [Completed(number=0, candidate=neutral, kind="original", metrics=problem.metrics(neutral))]
    for number in range(1, n + 1):
        levels = tuple(rng.binomial(n_levels - 1, rng.uniform(0.1, 0.9)).tolist())
        trials.append(problem.trial(number, Candidate(levels=levels)))
    return trials


def with_metric(trial: Completed, name: str, value: float) -> Completed:
    return replace(trial, metrics={**trial.metrics, name: Measurement(value=value)})


@pytest.fixture(scope="module")
def problem() -> SyntheticProblem:
    return SyntheticProblem(n_groups=10, n_levels=6, objectives=("accuracy", "divergence", "bytes"))


def of(problem: SyntheticProblem, trials: Sequence[Trial], quality: Objective = ACCURACY) -> Predictor:
    assert problem.table is not None
    return Predictor(problem.space, problem.table, trials, quality, 0)


def test_new_candidates_are_predicted_and_lie_in_the_intervals(problem: SyntheticProblem) -> None:
    predictor = of(problem, trials_of(problem, 100))
    within = {"divergence": 0, "accuracy": 0}
    errors = []
    for trial in trials_of(problem, 100, seed=1)[1:]:
        found = predictor.predict(trial.candidate.levels)
        for name in within:
            measured = found[name]
            assert measured.source == "predicted"
            assert measured.low is not None
            assert measured.high is not None
            within[name] += measured.low <= trial.metrics[name].value <= measured.high
        errors.append(math.log(found["divergence"].value / trial.metrics["divergence"].value))
    assert within["divergence"] >= 85
    assert within["accuracy"] >= 85
    stated, found_error = predictor.trust["divergence"].error, float(np.quantile(np.abs(errors), 0.68))
    assert 0.5 * stated < found_error < 1.5 * stated  # what it states is about what it does


def test_what_is_learnt_beats_the_table(problem: SyntheticProblem) -> None:
    trials = trials_of(problem, 100)
    assert problem.table is not None
    done = trials[1:]
    truth = np.log([t.metrics["divergence"].value for t in done])
    alone = np.log([problem.table.divergence_of(t.candidate) for t in done])
    trust = of(problem, trials).trust["divergence"]
    assert trust.n == 100
    assert trust.error < 0.7 * float(np.sqrt(np.mean((truth - alone) ** 2)))
    assert trust.rank > 0.9
    assert trust.share > 0.8


def test_a_quality_that_is_noise_is_not_predicted(problem: SyntheticProblem) -> None:
    rng = np.random.default_rng(0)
    trials = [with_metric(trial, "accuracy", float(rng.random())) for trial in trials_of(problem, 100)]
    predictor = of(problem, trials)
    assert not predictor.can_predict("accuracy")
    assert set(predictor.predict((3,) * 10)) == {"divergence"}


def test_a_loss_is_predicted_like_a_score(problem: SyntheticProblem) -> None:
    """A metric that is minimised: the same curve, upside down."""
    turned = [with_metric(t, "loss", -t.metrics["accuracy"].value) for t in trials_of(problem, 60)]
    as_loss, as_score = of(problem, turned, Objective(name="loss")), of(problem, turned)
    levels = (3,) * 10
    assert as_loss.predict(levels)["loss"].value == pytest.approx(-as_score.predict(levels)["accuracy"].value)
    assert as_loss.trust["loss"].share == pytest.approx(as_score.trust["accuracy"].share)


def test_too_few_trials_leave_the_table_alone(problem: SyntheticProblem) -> None:
    predictor = of(problem, trials_of(problem, 5))
    assert problem.table is not None
    candidate = Candidate(levels=(3,) * 10)
    found = predictor.predict(candidate.levels)
    assert found["divergence"].value == pytest.approx(problem.table.divergence_of(candidate))
    assert found["divergence"].low is None
    assert predictor.trust == {}
    assert not predictor.can_predict("accuracy")
    assert predictor.can_predict("divergence")
    assert predictor.scores()[:, :6] == pytest.approx(np.array(problem.table.divergence))


def test_what_was_measured_stands(problem: SyntheticProblem) -> None:
    trials = trials_of(problem, 60)
    found = of(problem, trials).predict(trials[9].candidate.levels)
    assert found == {name: trials[9].metrics[name] for name in ("divergence", "accuracy")}


def test_the_model_as_it_came_diverges_by_nothing(problem: SyntheticProblem) -> None:
    found = of(problem, trials_of(problem, 60)).predict((0,) * 10)
    assert found["divergence"].value == 0.0
    assert found["accuracy"].value == pytest.approx(0.95, abs=0.02)


def test_estimates_are_learnt_from_and_never_judged_by(problem: SyntheticProblem) -> None:
    trials = trials_of(problem, 60)
    raced = [
        EarlyStopped(
            number=100 + t.number, candidate=t.candidate, kind="mixed", reason="raced out", metrics=t.metrics,
            beaten_by=1, samples=32,
        )
        for t in trials_of(problem, 40, seed=2)[1:]
    ]  # fmt: skip
    alone, more = of(problem, trials), of(problem, [*trials, *raced])
    assert more.trust["divergence"].n == alone.trust["divergence"].n == 60
    assert not np.array_equal(alone.scores(), more.scores())


@pytest.mark.parametrize(
    ("one", "other", "rank"),
    [
        ([1, 2, 3], [10, 20, 99], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 2, 3], [5, 5, 5], 0.0),
        ([1, 1, 2], [1, 1, 5], 1.0),
    ],
)
def test_rank_correlation(one: list[float], other: list[float], rank: float) -> None:
    assert rank_correlation(np.array(one, dtype=float), np.array(other, dtype=float)) == pytest.approx(rank)
