"""The rivals earn their name, pay for what they ask, and the programme inside them is right."""

from __future__ import annotations

import contextlib
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from searchbench import play
from searchbench.lab import BudgetSpent, SyntheticLab
from searchbench.rivals import RIVALS
from searchbench.rivals._fisher import greedy
from searchbench.rivals._hawq import hessian_traces
from searchbench.rivals._lems import depth_multiplier
from searchbench.rivals._programme import Programme, budgets_between, spread
from torch import nn

from paredown.testing import SyntheticProblem

BUDGET = 60


@pytest.mark.parametrize("name", ["spdy", "evopress", "lems", "amq"])
def test_a_rival_beats_random_at_equal_cost(name: str, tmp_path: Any) -> None:
    """On three instances: hypervolume after 60 evaluations, the uniform settings told to both.

    AMQ is made for thousands of evaluations; on one instance it finds nothing in 60.
    """
    leads = []
    for seed in range(3):
        volumes = {}
        for searcher in (name, "random"):
            trace = play.run("synthetic-strong", searcher, seed, evaluations=BUDGET, work=tmp_path)
            assert BUDGET <= trace.evaluations < BUDGET + 1
            volumes[searcher] = trace.volume_at(BUDGET)
        leads.append(volumes[name] - volumes["random"])
    assert min(leads) >= 0.0
    assert sum(lead > 0.0 for lead in leads) == (2 if name == "amq" else 3)


@pytest.mark.parametrize("name", ["spdy", "evopress", "lems", "amq"])
def test_a_rival_repeats_itself_and_ends_on_a_space_that_it_knows(name: str) -> None:
    runs = []
    for _ in range(2):
        problem, records = SyntheticProblem(n_groups=2, n_levels=3, interaction=3.0), []
        lab = SyntheticLab(problem, 1e6, 64, records)
        with contextlib.suppress(BudgetSpent):  # LEMS ends by itself when it has no further budget
            RIVALS[name](lab, np.random.default_rng(0))
        runs.append(records)
    assert runs[0] == runs[1]


def test_the_default_beats_random_and_pays_for_its_table(tmp_path: Any) -> None:
    own = play.run("synthetic-strong", "evolution", 0, evaluations=BUDGET, work=tmp_path)
    other = play.run("synthetic-strong", "random", 0, evaluations=BUDGET, work=tmp_path)
    assert own.volume_at(BUDGET) > other.volume_at(BUDGET)
    # 6 levels of 22 layers, 64 samples, of a chain whose beginning is not run again
    assert own.booked["table"] == pytest.approx(sum(6 * 64 * (22 - g) / 22 for g in range(22)))
    assert own.booked["baselines"] == other.booked["baselines"] == 7 * 512


def lab_of(budget: float = 1e6) -> SyntheticLab:
    return SyntheticLab(SyntheticProblem(n_groups=3, n_levels=4), budget, 64, [])


def test_the_lab_charges_once_and_stops() -> None:
    lab = lab_of(budget=64 * 5 + 10)
    assert lab.spent == 64 * 4  # the uniform settings
    first = lab.part((0, 1, 2), 8, draw=0)
    assert lab.part((0, 1, 2), 8, draw=0) == first
    assert lab.spent == 64 * 4 + 8
    assert lab.part((0, 1, 2), 8, draw=1) != first
    lab.full((0, 1, 2))
    assert lab.full((0, 1, 2)) == lab.part((0, 1, 2), 64, draw=5) == lab.full((0, 1, 2))
    assert lab.spent == 64 * 5 + 16 == sum(r.get("passes", r.get("samples", 0)) for r in lab.records)
    with pytest.raises(BudgetSpent):
        lab.full((2, 1, 0))
    with pytest.raises(BudgetSpent):
        lab.pay("gradients", 1.0)


def test_the_ladder_leaves_out_what_is_beaten() -> None:
    lab = lab_of()
    lab.costs = np.array([[40.0, 30.0, 30.0, 10.0, np.inf]])
    lab.errors = np.array([[0.0, 0.2, 0.1, 0.3, 0.0]])
    assert lab.ladder(0) == [0, 2, 3]
    lab.errors = np.array([[0.0, 0.2, 0.1, 0.05, 0.0]])
    assert lab.ladder(0) == [0, 3]


numbers = st.integers(0, 20)
tables = st.lists(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=3), min_size=1, max_size=4)


@given(tables, st.integers(0, 80))
def test_the_programme_is_exact_on_whole_numbers(table: list[list[tuple[int, int]]], budget: int) -> None:
    width = max(map(len, table))
    errors, costs = np.full((len(table), width), np.inf), np.full((len(table), width), np.inf)
    for g, row in enumerate(table):
        for level, (error, cost) in enumerate(row):
            errors[g, level], costs[g, level] = error, cost
    span = sum(max(c for _, c in row) - min(c for _, c in row) for row in table)
    levels = Programme(errors, costs, n_buckets=max(span, 1)).solve(budget)
    allowed = [
        (sum(table[g][i][0] for g, i in enumerate(choice)), choice)
        for choice in product(*(range(len(row)) for row in table))
        if sum(table[g][i][1] for g, i in enumerate(choice)) <= budget
    ]
    if not allowed:
        assert levels is None
        return
    assert levels is not None
    assert (sum(table[g][i][0] for g, i in enumerate(levels)), levels) in allowed
    assert sum(table[g][i][0] for g, i in enumerate(levels)) == min(allowed)[0]


def test_budgets_lie_evenly_inside_the_range() -> None:
    assert budgets_between(1.0, 16.0, 3) == pytest.approx([2.0, 4.0, 8.0])


def test_any_beginning_of_the_budgets_is_spread() -> None:
    order = spread(1.0, 2.0**8, 7)
    assert sorted(order) == pytest.approx(budgets_between(1.0, 2.0**8, 7))
    assert order[:3] == pytest.approx([16.0, 4.0, 64.0])


def test_the_weight_of_depth_falls_from_the_first_layer() -> None:
    assert depth_multiplier(4, alpha=0.0, gamma=3.0) == pytest.approx([4.0, 3.0, 2.0, 1.0])
    assert depth_multiplier(4, alpha=2.0, gamma=0.0) == pytest.approx([1.0] * 4)
    steep = depth_multiplier(3, alpha=1.0, gamma=1.0)  # tails 11/6, 5/6, 1/3
    assert steep == pytest.approx([2.0, 1.0 + (5 / 6 - 1 / 3) / 1.5, 1.0])
    assert depth_multiplier(1, alpha=1.0, gamma=2.0) == pytest.approx([1.0])


def test_the_greedy_path_takes_what_costs_least_for_each_byte() -> None:
    costs = np.array([[8.0, 4.0, 2.0], [10.0, 5.0, np.inf]])
    scores = np.array([[0.0, 4.0, 5.0], [0.0, 1.0, np.inf]])
    # 1/5 for the second group; then 5/6 for the first group's last level, which is less than 4/4 for its middle one
    assert greedy(scores, costs) == [(0, 0), (0, 1), (2, 1)]
    assert greedy(np.array([[0.0, np.inf]]), np.array([[8.0, 4.0]])) == [(0,)]


def test_traces_of_a_hessian_that_is_known() -> None:
    """Cross entropy of a linear layer: H = (diag p − p pᵀ) ⊗ x xᵀ, so Tr H = (1 − Σ p²) |x|², whatever the label."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3, bias=False).requires_grad_(False)
    inputs, labels = torch.randn(8, 4), torch.zeros(8, dtype=torch.int64)
    weight = model.weight
    p = model(inputs).softmax(dim=1)
    expected = float(((1.0 - p.square().sum(dim=1)) * inputs.square().sum(dim=1)).mean())
    rng = np.random.default_rng(0)
    found = [float(hessian_traces(model, inputs, labels, [weight], rng)[0]) for _ in range(60)]
    assert np.mean(found) == pytest.approx(expected, rel=0.05)
    assert not weight.requires_grad
