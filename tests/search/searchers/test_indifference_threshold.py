"""Values below the indifference threshold count as equal, and nothing is spent on telling them apart."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from paredown.search import Candidate, SearchContext
from paredown.search.searchers import Budget, Surrogate, make_searcher
from paredown.search.values import Objective
from paredown.testing._problems import SyntheticProblem

THRESHOLD = 0.2
"""About a third of the synthetic problem's range of log divergence lies below."""


def context_of(problem: SyntheticProblem, indifference_threshold: float, seed: int = 0) -> SearchContext:
    quality, *costs = problem.objectives
    first = dataclasses.replace(quality, indifference_threshold=indifference_threshold)
    return dataclasses.replace(problem.context(seed), objectives=(first, *costs))


def divergences(problem: SyntheticProblem, context: SearchContext, n: int) -> list[tuple[float, float]]:
    searcher, found = make_searcher("evolution", context), []
    searcher.tell([problem.trial(i, candidate) for i, candidate in enumerate(problem.uniform())])
    for i in range(n):
        (candidate,) = searcher.ask(1)
        searcher.tell([problem.trial(100 + i, candidate)])
        found.append((problem.divergence(candidate), problem.table.cost_of("bytes", candidate)))
    return found


def test_a_value_is_judged_and_measured() -> None:
    objective = Objective(name="divergence", indifference_threshold=1e-4)
    assert [objective.key(v) for v in (0.0, 1e-5, 1e-4, 0.5)] == [1e-4, 1e-4, 1e-4, 0.5]
    assert objective.signed(1e-5) == 1e-5
    assert Objective(name="loss").key(-3.0) == -3.0
    assert Objective(name="accuracy", maximise=True).key(0.9) == -0.9
    problem = SyntheticProblem()
    dearest = problem.trial(0, Candidate(levels=(0,) * len(problem.space)))
    assert context_of(problem, 9.0).vector(dearest)[0] == 9.0
    assert context_of(problem, -math.inf).vector(dearest)[0] < 9.0


@pytest.mark.parametrize("seed", range(3))
def test_the_trials_go_where_they_matter(seed: int) -> None:
    problem = SyntheticProblem(seed=seed)
    plain = divergences(problem, context_of(problem, -math.inf, seed), 60)
    spared = divergences(problem, context_of(problem, THRESHOLD, seed), 60)
    below = [sum(divergence < THRESHOLD for divergence, _ in found) for found in (plain, spared)]
    assert below[0] >= 15
    assert below[1] <= below[0] // 2
    cheapest = [min(n_bytes for divergence, n_bytes in found if divergence < THRESHOLD) for found in (plain, spared)]
    assert cheapest[1] <= 1.02 * cheapest[0]


def test_the_first_sweep_has_one_that_is_good_enough() -> None:
    problem = SyntheticProblem()
    context = context_of(problem, THRESHOLD)
    first = Budget(context).first(16)
    sums = sorted(problem.table.divergence_of(Candidate(levels=levels)) for levels in first)
    assert len(first) == 16
    assert sum(s <= THRESHOLD for s in sums) <= 1
    plain = Budget(context_of(problem, -math.inf)).first(16)
    assert sum(problem.table.divergence_of(Candidate(levels=levels)) <= THRESHOLD for levels in plain) >= 4


def test_needed_by_hand() -> None:
    problem = SyntheticProblem(n_groups=3)
    budget = Budget(context_of(problem, 1.0))
    scores = np.array([[0.0, 0.4, 5.0]] * 3)
    pool = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [2, 0, 0]], dtype=np.int16)
    bytes_of = [problem.table.cost_of("bytes", Candidate(levels=tuple(row))) for row in pool.tolist()]
    assert bytes_of[:3] == sorted(bytes_of[:3], reverse=True)
    assert budget.needed(pool, scores).tolist() == [[1, 1, 0], [1, 1, 1], [2, 0, 0]]  # 0.8 is enough, 1.2 and 5 are not
    assert len(Budget(context_of(problem, -math.inf)).needed(pool, scores)) == len(pool)


def test_no_prediction_is_below_it_and_the_fit_knows_what_was_measured() -> None:
    problem = SyntheticProblem()
    context = context_of(problem, THRESHOLD)
    surrogate = Surrogate(context)
    rng = np.random.default_rng(0)
    share = rng.random((80, 1))
    levels = rng.binomial(6, share, size=(80, len(problem.space))).astype(np.int16)
    values = np.array([
        [problem.divergence(c), problem.table.cost_of("bytes", c)]
        for c in (Candidate(levels=tuple(row)) for row in levels.tolist())
    ])  # fmt: skip
    assert (values[:, 0] < THRESHOLD).sum() > 5
    surrogate.fit(levels, values)
    judged = surrogate.unscale(surrogate.predict(levels))[:, 0]
    assert judged.min() == pytest.approx(THRESHOLD)
    above = values[:, 0] > 2 * THRESHOLD
    error = np.abs(np.log(judged[above] / values[above, 0]))
    assert np.median(error) < 0.15


def test_it_goes_on_from_its_state() -> None:
    problem = SyntheticProblem()
    context = context_of(problem, THRESHOLD)
    one, other = (make_searcher("evolution", context) for _ in range(2))
    for i in range(20):
        (candidate,) = one.ask(1)
        one.tell([problem.trial(i, candidate)])
    other.load_state_dict(one.state_dict())
    assert one.ask(5) == other.ask(5)
