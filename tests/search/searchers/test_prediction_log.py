"""Predictions beside their results, and the trust that follows from them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from paredown.search import Candidate
from paredown.search.searchers import (
    LOG_WINDOW,
    MIN_PREDICTIONS,
    PredictionLog,
    Reporting,
    Surrogate,
    make_searcher,
    rank_correlation,
)
from paredown.search.values import Objective
from paredown.testing._problems import SyntheticProblem


def fitted() -> Surrogate:
    problem = SyntheticProblem(n_groups=4, n_levels=4)
    candidates = problem.uniform()
    surrogate = Surrogate(problem.context(), [Objective(name="accuracy", maximise=True)])
    levels = np.array([c.levels for c in candidates], dtype=np.int16)
    surrogate.fit(levels, np.array([[-problem.metrics(c)["accuracy"].value] for c in candidates]))
    surrogate._log = {}  # judged as it stands
    return surrogate


@pytest.mark.parametrize(
    ("error", "trust"), [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0), (3.0, 0.0)], ids=["exact", "half", "mean", "worse"]
)
def test_trust_by_hand(error: float, trust: float) -> None:
    """Results of ±1 spread by 1; predictions that are always off by `error`."""
    log = PredictionLog([Objective(name="accuracy", maximise=True)])
    surrogate = fitted()
    for i in range(MIN_PREDICTIONS):
        assert log.trust(surrogate, 0) is None
        value = np.array([(-1.0) ** i])
        log.add(value + error, value)
    assert log.trust(surrogate, 0) == pytest.approx(trust)
    told = log.report(surrogate)["accuracy"]
    assert told["heldout_rmse"] == pytest.approx(error)
    assert told["heldout_rank"] == pytest.approx(1.0)
    assert told["n"] == MIN_PREDICTIONS


def test_only_the_latest_count() -> None:
    log = PredictionLog([Objective(name="accuracy", maximise=True)])
    for i in range(LOG_WINDOW + 20):
        wrong = 100.0 if i < 20 else 0.0
        log.add(np.array([i + wrong]), np.array([float(i)]))
    assert log.trust(fitted(), 0) == 1.0


def test_rank_correlation_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 6, 15).astype(float), rng.normal(size=15)
        assert rank_correlation(a, b) == pytest.approx(float(spearmanr(a, b).statistic))
    assert rank_correlation(np.ones(4), np.arange(4.0)) == 0.0


def test_a_prediction_is_made_before_its_result_is_learnt() -> None:
    """Told results that no model could predict, it must not report that it predicted them."""
    problem = SyntheticProblem(n_groups=6, n_levels=5)
    rng = np.random.default_rng(0)
    searcher = make_searcher("evolution", problem.context())
    assert isinstance(searcher, Reporting)
    for i in range(60):
        (candidate,) = searcher.ask(1)
        other = Candidate(levels=tuple(rng.integers(0, 5, 6).tolist()))
        trial = problem.trial(i, candidate)
        metrics = dict(trial.metrics) | {"divergence": problem.metrics(other)["divergence"]}
        searcher.tell([type(trial)(number=i, candidate=candidate, kind="mixed", metrics=metrics)])
    about = searcher.report()["divergence"]
    assert about["trust"] < 0.2
    assert about["heldout_rank"] < 0.5


def test_on_a_problem_of_its_kind_it_is_trusted() -> None:
    problem = SyntheticProblem()
    searcher = make_searcher("evolution", problem.context())
    assert isinstance(searcher, Reporting)
    assert searcher.report() == {}
    for i in range(60):
        for candidate in searcher.ask(1):
            searcher.tell([problem.trial(i, candidate)])
    said = searcher.report()
    assert set(said) == {"divergence"}  # bytes are looked up
    assert said["divergence"]["trust"] > 0.6
    assert said["divergence"]["heldout_rank"] > 0.9
    assert 0 < said["divergence"]["loo_rmse"] < 1.0
    assert json.loads(json.dumps(said, allow_nan=False)) == said
