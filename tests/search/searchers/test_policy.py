"""The policy gradient. The order of calls and the state are the contract suite's."""

from __future__ import annotations

import numpy as np
import pytest

from paredown.search.searchers import Budget, Policy, lowered, make_searcher
from paredown.testing._problems import SyntheticProblem

PROBLEM = SyntheticProblem(n_groups=6, n_levels=5)


def policy(problem: SyntheticProblem = PROBLEM) -> Policy:
    return Policy(problem.context(), Budget(problem.context()))


def log_chance(of: Policy, levels: tuple[int, ...]) -> float:
    """Layer by layer, as an episode goes."""
    left, total = of.cost_of(levels), 0.0
    least, most = of._least, of._most
    for g, level in enumerate(levels):
        low, high = float(least[g:].sum()), float(most[g:].sum())
        slack = float(np.clip(2 * (left - low) / (high - low) - 1, -1, 1))
        logits = of._logits(g, slack)
        total += float(logits[level] - np.log(np.exp(logits).sum()))
        left -= float(of.cost[g, level])
    return total


def test_the_gradient_is_that_of_the_log_chance() -> None:
    """Against central differences."""
    of = policy()
    rng = np.random.default_rng(0)
    of.weights = rng.normal(size=of.weights.shape)
    levels = tuple(rng.integers(0, 5, 6).tolist())
    found = of.gradient(levels) * np.sqrt(6)
    at = of.weights.copy()
    for i in range(len(at)):
        there = []
        for step in (1e-5, -1e-5):
            of.weights = at.copy()
            of.weights[i] += step
            there.append(log_chance(of, levels))
        assert found[i] == pytest.approx((there[0] - there[1]) / 2e-5, abs=1e-6)


def test_episodes_cover_every_budget() -> None:
    of = policy(SyntheticProblem())
    rng = np.random.default_rng(0)
    costs = np.array([of.cost_of(of.episode(rng, 0.05)) for _ in range(200)])
    share = (costs - of._least.sum()) / (of._most - of._least).sum()
    assert np.histogram(share, bins=4, range=(0, 1))[0].min() >= 20


def test_repair_by_hand() -> None:
    """From (0, 0) of cost 8: the switch of group 1 saves enough for the least harm; nothing is left below 2."""
    scores = np.array([[0.0, 3.0], [0.0, 1.0]])
    cost = np.array([[4.0, 1.0], [4.0, 1.0]])
    start = np.zeros(2, dtype=np.int64)
    assert lowered(start, scores, cost, 8.0).tolist() == [0, 0]
    assert lowered(start, scores, cost, 5.0).tolist() == [0, 1]
    assert lowered(start, scores, cost, 4.0).tolist() == [1, 1]
    assert lowered(start, scores, cost, 0.0).tolist() == [1, 1]
    assert start.tolist() == [0, 0]


def test_it_learns() -> None:
    """After 200 trials it finds better candidates for the same budgets than the policy that has learnt nothing."""
    gains = []
    for seed in range(3):
        problem = SyntheticProblem(seed=seed)
        scores = []
        for rate in (0.1, 0.0):
            searcher = make_searcher("policy", problem.context(seed), {"learning_rate": rate})
            found = []
            for i in range(200):
                for candidate in searcher.ask(1):
                    found.append(candidate)
                    searcher.tell([problem.trial(i, candidate)])
            scores.append(problem.score(found))
        gains.append(scores[0] - scores[1])
    assert np.mean(gains) > 0.02
