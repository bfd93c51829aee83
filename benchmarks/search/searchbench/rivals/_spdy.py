"""SPDY: a search for the coefficients of an additive error, of which a dynamic programme takes the best (Frantar &
Alistarh 2022, "SPDY: Accurate Pruning with Speedup Guarantees").

e_l(s) is a layer's error at level s, known from the layer database; the coefficients c in [0, 1]^L say how much each
layer's error counts. For each c the programme gives the levels that meet the budget, and the model so put together is
evaluated. First 100 random c, then, from the best, k = 0.1 L coefficients at a time are drawn again; k goes down by one
after 100 failures in a row, to 1.

Different here: the 100s are for 600 evaluations of one budget, and are scaled to what each budget gets. e is the
relative squared error of the weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..lab import Lab, Levels
from ._programme import Programme, budgets_between

N_BUDGETS = 8
PAPERS_EVALUATIONS, PAPERS_PATIENCE = 600, 100
N_BUCKETS = 10_000


@dataclass(slots=True)
class _Search:
    """Of one budget. `best` is the divergence of the best coefficients so far, `failures` those since."""

    budget: float
    coefficients: NDArray[np.float64] | None = None
    best: float = float("inf")
    n_asked: int = 0
    failures: int = 0
    k: int = 0


def spdy(
    lab: Lab, rng: np.random.Generator, *, n_budgets: int = N_BUDGETS, prior: bool = False, n_buckets: int = N_BUCKETS
) -> None:
    errors = _errors(lab, prior)
    ends = (lab.costs.min(axis=1).sum(), np.where(np.isfinite(lab.costs), lab.costs, 0.0).max(axis=1).sum())
    searches = [
        _Search(budget=budget - lab.fixed, k=max(1, round(0.1 * lab.n_groups)))
        for budget in budgets_between(lab.fixed + float(ends[0]), lab.fixed + float(ends[1]), n_budgets)
    ]
    each = (lab.budget - lab.spent) / lab.n_samples / n_budgets
    patience = max(2, round(PAPERS_PATIENCE * each / PAPERS_EVALUATIONS))
    while True:
        for search in searches:
            _step(lab, rng, search, errors, patience, n_buckets)


def _step(
    lab: Lab, rng: np.random.Generator, search: _Search, errors: NDArray[np.float64], patience: int, n_buckets: int
) -> None:
    """One candidate of one budget. Coefficients that lead to known levels cost nothing, but a look."""
    levels: Levels | None = None
    drawn = np.zeros(lab.n_groups)
    if search.coefficients is None or search.n_asked < patience:
        drawn = rng.random(lab.n_groups)
    else:
        drawn = search.coefficients.copy()
        drawn[rng.choice(lab.n_groups, size=search.k, replace=False)] = rng.random(search.k)
    levels = Programme(errors * drawn[:, None], lab.costs, n_buckets).solve(search.budget)
    search.n_asked += 1
    if levels is None:
        return
    divergence = lab.full(levels)
    if divergence < search.best:
        search.best, search.coefficients, search.failures = divergence, drawn, 0
        return
    search.failures += 1
    if search.n_asked >= patience and search.failures >= patience:
        search.k, search.failures = max(1, search.k - 1), 0


def _errors(lab: Lab, prior: bool) -> NDArray[np.float64]:
    errors = np.full(lab.errors.shape, np.inf)
    for g in range(lab.n_groups):
        ladder = lab.ladder(g)
        for place, level in enumerate(ladder):
            errors[g, level] = (place / max(1, len(ladder) - 1)) ** 2 if prior else lab.errors[g, level]
    return errors
