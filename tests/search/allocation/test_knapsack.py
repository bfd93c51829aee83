"""The dynamic programme against all candidates counted out."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown._arrays import FloatArray
from paredown.search.allocation import Knapsack, knapsack

Problem = tuple[FloatArray, FloatArray]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Up to five groups of up to four levels, small whole numbers: ties, equal and useless levels; some are absent."""
    n_groups, n_levels = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    numbers = st.lists(st.integers(0, 12).map(float), min_size=n_levels, max_size=n_levels)
    divergence, cost = (
        np.array(draw(st.lists(numbers, min_size=n_groups, max_size=n_groups)), dtype=np.float64) for _ in range(2)
    )
    for g in range(n_groups):
        n = draw(st.integers(1, n_levels))
        divergence[g, n:] = cost[g, n:] = np.inf
    return divergence, cost


def every(problem: Problem) -> list[tuple[float, float]]:
    """(cost, divergence) of each candidate."""
    divergence, cost = problem
    rows = np.arange(len(divergence))
    found = [
        (float(cost[rows, levels].sum()), float(divergence[rows, levels].sum()))
        for levels in product(*(range(int(np.isfinite(row).sum())) for row in cost))
    ]
    assert all(np.isfinite(pair).all() for pair in found)
    return found


def best(pairs: list[tuple[float, float]], budget: float) -> float:
    return min((d for c, d in pairs if c <= budget), default=np.inf)


def at(found: Knapsack, budget: float) -> float:
    i = found.within(budget)
    return np.inf if i is None else float(found.divergence[i])


def test_by_hand() -> None:
    # The hull goes from (0, 0) over (1, 0) to (1, 1); (0, 1) lies above it, and is the best at a budget of 1000.
    found = knapsack(np.array([[0.0, 1000.0], [0.0, 900.0]]), np.array([[1000.0, 0.0], [600.0, 0.0]]))
    assert found.levels.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert found.cost.tolist() == [1600.0, 1000.0, 600.0, 0.0]
    assert found.divergence.tolist() == [0.0, 900.0, 1000.0, 1900.0]
    assert found.slack == 0.0
    assert [found.within(budget) for budget in (1e9, 1600.0, 1599.0, 600.0, 599.0, 0.0, -1.0)] == [
        0,
        0,
        1,
        2,
        3,
        3,
        None,
    ]


@given(problems())
def test_it_is_the_best_at_every_budget(problem: Problem) -> None:
    found, pairs = knapsack(*problem), every(problem)
    assert found.slack == 0.0
    for budget in {c + step for c, _ in pairs for step in (-1.0, 0.0)}:
        assert at(found, budget) == best(pairs, budget)


@given(problems(), st.integers(1, 6))
def test_with_few_buckets_it_is_as_good_as_it_says(problem: Problem, buckets: int) -> None:
    found, pairs = knapsack(*problem, buckets=buckets), every(problem)
    for cost, _ in pairs:
        assert at(found, cost + found.slack + 1e-9) <= best(pairs, cost)
    assert float(found.cost[-1]) == min(c for c, _ in pairs)


@given(problems(), st.integers(1, 40))
def test_the_sums_are_those_of_the_levels(problem: Problem, buckets: int) -> None:
    divergence, cost = problem
    found = knapsack(*problem, buckets=buckets)
    rows = np.arange(len(cost))
    assert cost[rows, found.levels].sum(axis=1) == pytest.approx(found.cost)
    assert divergence[rows, found.levels].sum(axis=1) == pytest.approx(found.divergence)
    for (dear, good), (cheap, bad) in pairwise(zip(found.cost, found.divergence, strict=True)):
        assert cheap < dear
        assert bad > good


def test_few_buckets_lose_something_and_say_so() -> None:
    rng = np.random.default_rng(0)
    cost, divergence = rng.random((12, 5)), rng.random((12, 5))
    whole, coarse = knapsack(divergence, cost), knapsack(divergence, cost, buckets=20)
    assert whole.slack == 0.0 < coarse.slack
    assert len(coarse.cost) <= 22 < len(whole.cost)


def test_small_groups_are_not_rounded_away() -> None:
    """One group's costs are a million times the others': their own choices still cost what they cost."""
    cost = np.array([[1e6, 0.0], *[[1.0, 0.0]] * 8])
    found = knapsack(np.array([[0.0, 50.0], *[[0.0, 1.0]] * 8]), cost, buckets=100)
    assert found.within(1e6 + 3.0) is not None
    assert at(found, 1e6 + 3.0) == 5.0
