"""A genetic algorithm: generations of a population, tournament, crossover, mutation, survival of the fittest.

With its defaults it is NSGA-II (Deb 2002). `survival = "reference"` gives it the survival of NSGA-III (Deb & Jain
2014), and few `elites` make it a plain genetic algorithm. A generation closes when as many results as the population
has members have come since the last one, in any order: workers never wait for each other. It suits budgets such as 50 x
100 evaluations over 2, 3, 4, 6, 8 and 16 bits, and it is a baseline for others: it knows nothing of the layers, so it
needs the evaluations. With `seed_with_sweep` its first generation is the sweep of the sensitivity table. It is not good
enough to be the default.

Hypervolume in (log divergence, bytes), `SyntheticProblem` of 22 groups x 7 levels, mean of 5 seeds, baselines told:

                                    interaction = 1            interaction = 3
    trials                       25    50   100   200       25    50   100   200
    this, population 20        .715  .721  .741  .779     .751  .760  .782  .835
    this, from the sweep       .871  .872  .873  .875     .886  .889  .890  .895
    `evolution`                .879  .889  .903  .912     .904  .915  .922  .925
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ..values import Candidate, Completed, Trial
from ._archive import violation_of
from ._base import SearchContext
from ._budget import Budget
from ._known import KnownCandidates, Levels, levels_of
from ._state import read_levels, read_state, write_state
from ._survival import Survival, survivors

IndexArray: TypeAlias = NDArray[np.int64]

RETRIES = 16
"""Most children that are known already before a neighbour of the last one is taken."""


class GeneticSearcher:
    """The genetic searcher, see the module. Options:

    population       number of members, and of results for each generation
    elites           number of old members that compete with the new results (None: all)
    crossover        probability that a child has two parents, in [0, 1]; otherwise it is a mutated copy
    mutation         probability of each group to get a random other level, in [0, 1] (None: one group a child on
                     average)
    tournament       number of members that are drawn for each parent; the best becomes the parent
    survival         "crowding" or "reference"
    seed_with_sweep  number of points of the sensitivity table's sweep that are proposed first (True: `population`)
    """

    def __init__(
        self,
        context: SearchContext,
        *,
        population: int = 50,
        elites: int | None = None,
        crossover: float = 0.9,
        mutation: float | None = None,
        tournament: int = 2,
        survival: Survival = "crowding",
        seed_with_sweep: int | bool = False,
    ) -> None:
        _check_counts(population=(population, 2), tournament=(tournament, 1))
        if elites is not None:
            _check_counts(elites=(elites, 0))
        _check_shares(crossover=crossover, **({} if mutation is None else {"mutation": mutation}))
        if survival not in ("crowding", "reference"):
            raise InputError(f"survival of searcher 'genetic' must be 'crowding' or 'reference', got {survival!r}")
        self._context = context
        self._population, self._tournament, self._survival = population, tournament, survival
        self._elites = population if elites is None else min(elites, population)
        self._crossover = crossover
        self._mutation = 1.0 / len(context.space) if mutation is None else mutation
        self._n_levels = np.array(context.space.n_levels, dtype=np.int64)
        self._budget = Budget(context)
        self._first = self._budget.seeds(seed_with_sweep, population)
        self._reset()

    def _reset(self) -> None:
        self._known = KnownCandidates(self._context.space)
        self._results: list[tuple[Levels, list[float], float]] = []
        self._row_of: dict[Levels, int] = {}
        self._members: list[int] = []  # rows of results, best first
        self._closed = 0  # number of results that have been through a survival

    def ask(self, n: int) -> list[Candidate]:
        return self._known.asked(n, self._propose)

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            self._context.space.check(trial.candidate)
            levels = levels_of(trial.candidate)
            if isinstance(trial, Completed):
                values = [float(value) for value in self._context.vector(trial)]
                self._add_result(levels, values, violation_of(trial, self._context.limits))
            self._known.add(levels)

    def state_dict(self) -> dict[str, Any]:
        """Return the known candidates, and by their index the results in the order of telling."""
        index = {levels: i for i, levels in enumerate(self._known)}
        return write_state(
            "genetic",
            self._context.space,
            known=[list(levels) for levels in index],
            results=[[index[levels], list(values), violation] for levels, values, violation in self._results],
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        fields = read_state(state, "genetic", self._context.space, ("known", "results"))
        known = [read_levels(levels, self._context.space) for levels in fields["known"]]
        self._reset()
        self._known.update(known)
        for i, values, violation in fields["results"]:
            self._add_result(known[i], [float(value) for value in values], float(violation))

    def _add_result(self, levels: Levels, values: list[float], violation: float) -> None:
        if levels in self._row_of:
            return
        self._row_of[levels] = len(self._results)
        self._results.append((levels, values, violation))
        if len(self._results) - self._closed >= self._population:
            rows = self._members[: self._elites] + list(range(self._closed, len(self._results)))
            values_of = np.array([self._results[row][1] for row in rows], dtype=np.float64)
            excess = np.array([self._results[row][2] for row in rows], dtype=np.float64)
            best = survivors(values_of, excess, self._population, self._survival)
            self._members = [rows[i] for i in best.tolist()]
            self._closed = len(self._results)

    def _propose(self) -> Levels | None:
        if self._known.exhausted:
            return None
        rng = self._known.rng(self._context.seed)
        for levels in self._first:
            if levels not in self._known:
                return levels
        child: Levels | None = None
        for _ in range(RETRIES):
            child = self._child(rng) if self._members else self._random(rng)
            if child not in self._known:
                return child
        return None if child is None else self._known.near(child, rng)

    def _random(self, rng: np.random.Generator) -> Levels:
        return self._budget.within_limits(tuple(rng.integers(0, self._n_levels).tolist()))

    def _child(self, rng: np.random.Generator) -> Levels:
        mother, father = (self._parent(rng) for _ in range(2))
        levels = mother.copy()
        if rng.random() < self._crossover:
            levels = np.where(rng.random(len(levels)) < 0.5, mother, father)
        mutating = (rng.random(len(levels)) < self._mutation) & (self._n_levels > 1)
        other = rng.integers(1, np.maximum(self._n_levels, 2))  # number of levels to move up, wrapping around
        levels = np.where(mutating, (levels + other) % self._n_levels, levels)
        return self._budget.within_limits(tuple(levels.tolist()))

    def _parent(self, rng: np.random.Generator) -> IndexArray:
        """Return the best of the drawn members, which are in the order of their survival."""
        drawn = rng.integers(0, len(self._members), size=self._tournament)
        return np.array(self._results[self._members[int(drawn.min())]][0], dtype=np.int64)


def _check_counts(**counts: tuple[int, int]) -> None:
    for name, (value, least) in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{name} of searcher 'genetic' must be a whole number of at least {least}, got {value!r}")


def _check_shares(**shares: float) -> None:
    for name, value in shares.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
            raise InputError(f"{name} of searcher 'genetic' must be in [0, 1], got {value!r}")
