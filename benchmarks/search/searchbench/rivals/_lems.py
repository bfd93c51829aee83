"""LEMS: a table of divergences, two parameters of depth, and an integer programme (Thoma et al. 2026, "Advancing
SVD-based LLM Compression via Layer-Wise Error Model Search"; github.com/lems-svd/lems).

The divergence of each layer at each level alone is multiplied by 1 + gamma r_l, where r_l falls from 1 at the first
layer to 0 at the last: the sum over k >= l of (k + 1)^-alpha, scaled to that range. For one budget ten trials of
Optuna's TPE choose alpha in [0, 3] and gamma in [0, 7]; each is one solution of the programme, evaluated as a whole.

Different here: a layer is a block of its own. Its levels are those that no other beats in bytes and weight error. The
other layers are at their dearest level. The table's samples are so few that it costs a quarter of what may be spent, 8
at least. Budgets follow one another in an order in which any beginning is spread well.
"""

from __future__ import annotations

import numpy as np
import optuna
from numpy.typing import NDArray

from ..lab import Lab, Levels
from ._programme import Programme, spread

N_BUDGETS, N_TRIALS = 63, 10
TABLE_SHARE, MIN_SAMPLES = 0.25, 8
ALPHAS, GAMMAS = (0.0, 3.0), (0.0, 7.0)


def lems(lab: Lab, rng: np.random.Generator) -> None:
    table = _table(lab)
    dearest = float(np.where(np.isfinite(lab.costs), lab.costs, 0.0).max(axis=1).sum())
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for budget in spread(float(lab.costs.min(axis=1).sum()), dearest, N_BUDGETS):
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=int(rng.integers(1 << 31))))
        for _ in range(N_TRIALS):
            trial = study.ask()
            alpha, gamma = trial.suggest_float("alpha", *ALPHAS), trial.suggest_float("gamma", *GAMMAS)
            multiplier = depth_multiplier(lab.n_groups, alpha, gamma)
            levels = Programme(table * multiplier[:, None], lab.costs).solve(budget)
            if levels is None:
                break
            value = lab.full(levels)
            if np.isfinite(value):
                study.tell(trial, value)
            else:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)


def depth_multiplier(n: int, alpha: float, gamma: float) -> NDArray[np.float64]:
    """Weight of each of n layers: from 1 + gamma at the first to 1 at the last."""
    tails = np.cumsum(np.arange(1.0, n + 1.0)[::-1] ** -alpha)[::-1]
    span = float(tails[0] - tails[-1])
    return 1.0 + gamma * (tails - tails[-1]) / max(span, 1e-12)


def _table(lab: Lab) -> NDArray[np.float64]:
    ladders = [lab.ladder(g) for g in range(lab.n_groups)]
    base: Levels = tuple(ladder[0] for ladder in ladders)
    n_rows = 1 + sum(len(ladder) - 1 for ladder in ladders)
    n = max(MIN_SAMPLES, int(TABLE_SHARE * (lab.budget - lab.spent) / n_rows))
    least = lab.part(base, n, 0)
    table = np.full(lab.costs.shape, np.inf)
    for g, ladder in enumerate(ladders):
        table[g, ladder[0]] = 0.0
        for level in ladder[1:]:
            found = lab.part((*base[:g], level, *base[g + 1 :]), n, 0)
            table[g, level] = max(found - least, 0.0)
    return table
