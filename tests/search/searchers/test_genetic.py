"""The generations. The order of calls and the state are the contract suite's."""

from __future__ import annotations

import numpy as np

from paredown.search import Candidate, Searcher
from paredown.search.allocation import sweep
from paredown.search.searchers import make_searcher, uses_table
from paredown.testing._problems import SyntheticProblem


def play(searcher: Searcher, problem: SyntheticProblem, n: int) -> list[Candidate]:
    asked: list[Candidate] = []
    for i in range(n):
        for candidate in searcher.ask(1):
            asked.append(candidate)
            searcher.tell([problem.trial(i, candidate)])
    return asked


def test_with_enough_generations_it_beats_random() -> None:
    for seed in range(3):
        problem = SyntheticProblem(seed=seed)
        scores = []
        for name, options in (("genetic", {"population": 20}), ("random", {})):
            searcher = make_searcher(name, problem.context(seed), options)
            searcher.tell([problem.trial(1000 + i, c) for i, c in enumerate(problem.uniform())])
            scores.append(problem.score(play(searcher, problem, 200) + problem.uniform()))
        assert scores[0] > scores[1] + 0.01


def test_children_are_of_the_survivors() -> None:
    """Without mutation and with two parents a child has only its parents' levels."""
    problem = SyntheticProblem(n_groups=8, n_levels=6)
    searcher = make_searcher("genetic", problem.context(), {"population": 2, "mutation": 0.0, "crossover": 1.0})
    parents = [Candidate(levels=(1,) * 8), Candidate(levels=(3,) * 8)]
    searcher.tell([problem.trial(i, c) for i, c in enumerate(parents)])
    children = searcher.ask(20)
    assert {level for c in children for level in c.levels} == {1, 3}


def test_without_elites_the_old_are_forgotten() -> None:
    """The better old generation survives with all elites, and not without any."""
    problem = SyntheticProblem(n_groups=8, n_levels=6, objectives=("divergence", "bytes"))
    old = [Candidate(levels=(0,) * 8), Candidate(levels=(5,) * 8)]  # the ends of the front
    new = [Candidate(levels=(2,) * 8), Candidate(levels=(3,) * 8)]
    for elites, levels in ((None, {0, 5}), (0, {2, 3})):
        options = {"population": 2, "mutation": 0.0, "elites": elites}
        searcher = make_searcher("genetic", problem.context(), options)
        searcher.tell([problem.trial(i, c) for i, c in enumerate(old + new)])
        assert {level for c in searcher.ask(10) for level in c.levels} == levels


def test_a_generation_waits_for_its_results_and_not_for_what_failed() -> None:
    problem = SyntheticProblem(n_groups=8, n_levels=6)
    searcher = make_searcher("genetic", problem.context(), {"population": 4, "mutation": 0.0})
    searcher.tell([problem.failure(i, Candidate(levels=(i,) * 8), "failed") for i in range(4)])
    searcher.tell([problem.dominated(9, Candidate(levels=(4,) * 8))])
    searcher.tell([problem.trial(10 + i, Candidate(levels=(1, i, 1, 1, 1, 1, 1, 1))) for i in range(3)])
    assert len({level for c in searcher.ask(4) for level in c.levels}) == 6  # still at random
    searcher.tell([problem.trial(20, Candidate(levels=(1, 3, 1, 1, 1, 1, 1, 0)))])
    bred = np.array([c.levels for c in searcher.ask(3)])
    assert (bred[:, 2:7] == 1).all()


def test_it_begins_with_the_sweep_where_that_is_wanted() -> None:
    problem = SyntheticProblem()
    assert uses_table("genetic", {"seed_with_sweep": True})
    assert not uses_table("genetic")
    searcher = make_searcher("genetic", problem.context(), {"population": 10, "seed_with_sweep": True})
    asked = searcher.ask(14)
    assert set(asked[:10]) <= set(sweep(problem.table, "bytes"))
    assert not set(asked[10:]) & set(sweep(problem.table, "bytes"))
