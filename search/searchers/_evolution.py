"""The default searcher: an evolution that goes from the sensitivity table to the front, in three moves.

1. *Sweep.* It proposes the table's own solutions of every budget (`sweep`), spread over the whole range, and between
   them a middle point of each other proxy's sweep. The whole sweeps are in the pool from then on.
2. *Refit.* Every evaluation corrects the table's scores (`Surrogate`), and the corrected table is swept again. From
   that sweep and the best so far, a front is bred on predictions alone (`local_search`).
3. *Breed.* Children come from level switches that keep the budget, single switches and crossover of neighbours on the
   front (`offspring`). The surrogate screens them: the proposal is the one that adds most to the predicted hypervolume
   (`hypervolume_improvement`).

Candidates better than `indifference_threshold` count as equal, so the search looks only for the cheapest of them. The
predictions are kept beside the results (`report`). While they are bad, more is left to chance. Without a table the
search starts at random, from all budgets, and the surrogate learns from the levels alone. Every proposal follows from
the calls so far: a searcher that is told a whole ledger goes on as the first one would have.

Hypervolume in (log divergence, bytes), `SyntheticProblem` of 22 groups x 7 levels, mean of 5 seeds, baselines told. The
best result of a local search on the true function is .919, and .931 with strong interactions:

                                    interaction = 1            interaction = 3
    trials                       25    50   100   200       25    50   100   200
    this                       .879  .889  .903  .912     .904  .915  .922  .925
    without the discount       .882  .896  .906  .911     .903  .915  .922  .925
    without `local_search`     .878  .888  .898  .907     .900  .913  .920  .923
    without pairs              .876  .887  .893  .898     .894  .907  .914  .921    (see `_surrogate`)
    by `improvement`           .876  .893  .905  .912     .899  .917  .922  .925    (in place of the hypervolume)
    without table              .821  .823  .830  .842     .761  .764  .766  .768
    Optuna TPE, swept first    .865  .867  .870  .871     .883  .887  .889  .892
    Optuna NSGA-II, likewise   .864  .864  .865  .868     .880  .880  .883  .895
    `genetic`, likewise        .871  .872  .873  .875     .886  .889  .890  .895
    random                     .715  .715  .715  .717     .749  .752  .755  .761

These problems have no output perturbations. With those of a real table (`Superposition`) DS-CNN reaches .521 at the
cost of 100 evaluations instead of .515, and ResNet-20 .489 instead of .482.

The rows below the second are without the discount (`PredictionDiscount`) too. It costs a little here, where the
surrogate is right everywhere. On a real net (DS-CNN, bits, the cost of 100 evaluations, 3 seeds) it gives .514 instead
of .511.

So without a table and with strong interactions this searcher is no better than random search, and worse than `genetic`
(.782 at 100, .835 at 200).

One idea did not earn its lines: survival by reference directions with 3 or 4 objectives (+.001 at 120 trials).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..._arrays import FloatArray
from ...errors import InputError
from ..allocation import sweep_levels
from ..values import Candidate, Completed, EarlyStopped, Trial
from ._archive import Archive, violation_of
from ._base import SearchContext
from ._budget import Budget
from ._hypervolume_improvement import hypervolume_improvement
from ._known import KnownCandidates, Levels, levels_of
from ._limits import predicted_excess, predicted_metrics
from ._local_search import local_search
from ._offspring import Steps, offspring
from ._prediction_discount import PredictionDiscount
from ._prediction_log import PredictionLog
from ._state import read_levels, read_state, write_state
from ._surrogate import Surrogate

LevelArray: TypeAlias = NDArray[np.int16]

N_LOOKS = 1
"""Number of candidates of each proxy's sweep among the first proposals. The first proxy leads the sweep itself."""
N_SWEPT = 64
"""Most points of each refitted sweep in the pool, beside the children."""
MIN_FIT = 2
"""Least number of results for a fit, and for breeding."""
N_PENDING = 64
"""Most candidates under evaluation that count in the screening, by their predicted objectives."""
N_ESTIMATES = 64
"""Most estimates (of candidates that were stopped early) that the surrogate learns from: the latest ones."""
ESTIMATE_WEIGHT = 0.25
"""Weight of an estimate in a fit; a result has weight 1."""
N_NOISE = 64
"""Number of the latest results from which the noise of the quality is taken."""
PAIRED = 0.3
"""Noise of a difference relative to that of one value, about: two candidates are evaluated on the same samples."""
DISTRUST = 0.3
"""Share of unscreened proposals if predictions are worthless; it falls to `exploration` as trust rises."""


class EvolutionSearcher:
    """The default searcher, see the module. Options:

    initial      number of candidates from the first sweep before breeding starts; without a table, breeding starts
                 after a quarter as many results, of random candidates or of the baselines
    children     number of children that are bred and screened for each proposal
    exploration  least share of the proposals that are drawn from the children without screening, in [0, 1]; the share
                 is larger while the predictions are bad (`report`)
    """

    def __init__(
        self, context: SearchContext, *, initial: int = 16, children: int = 64, exploration: float = 0.02
    ) -> None:
        _check_options(initial, children, exploration)
        self._context = context
        self._initial = initial
        self._children = children
        self._exploration = exploration
        self._n_levels = np.array(context.space.n_levels, dtype=np.int64)
        self._budget = Budget(context)
        self._metrics = predicted_metrics(context)
        self._thresholds = np.array([metric.indifference_threshold for metric in self._metrics])
        self._proxy_fronts = self._budget.first_by_proxy(N_SWEPT)
        looks = [front[2 : 2 + N_LOOKS] for front in self._proxy_fronts[1:]]  # the ends tell nothing apart
        self._first = _interleaved(self._budget.first(initial), looks)
        self._reset()

    def _reset(self) -> None:
        self._known = KnownCandidates(self._context.space)
        self._archive = Archive(len(self._n_levels), len(self._context.objectives))
        self._told: list[tuple[Levels, _Told]] = []
        self._values: list[list[float | None]] = []  # by row of the archive, as measured
        self._noise: list[float] = []
        self._estimates: dict[Levels, list[float | None]] = {}
        self._pending: dict[Levels, None] = {}
        self._surrogate = Surrogate(self._context, self._metrics)
        self._log = PredictionLog(self._metrics)
        self._discount = PredictionDiscount()
        self._next_fit = MIN_FIT
        self._fit_due: tuple[NDArray[np.int64], list[tuple[Levels, list[float | None]]]] | None = None
        self._is_derived = False

    def ask(self, n: int) -> list[Candidate]:
        return self._known.asked(n, self._propose_and_await)

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            self._context.space.check(trial.candidate)
            levels = levels_of(trial.candidate)
            told = None
            if isinstance(trial, Completed):
                excess = violation_of(trial, self._context.limits)
                told = _Told(values=self._values_of(trial), violation=excess, noise=self._noise_of(trial))
            elif isinstance(trial, EarlyStopped) and all(o.name in trial.metrics for o in self._context.objectives):
                told = _Told(values=self._values_of(trial), violation=None, noise=0.0)
            self._known.add(levels)
            self._pending.pop(levels, None)
            if told is not None:
                self._add(levels, told)

    def report(self) -> dict[str, Any]:
        """Return how well the latest trials were predicted, see `PredictionLog.report`."""
        self._fit()
        return self._log.report(self._surrogate)

    def state_dict(self) -> dict[str, Any]:
        """Return the known candidates, and by their index the told results (in that order) and the pending candidates.

        A told result is [index, values, violation, noise]; without a violation it is an estimate.
        """
        index = {levels: i for i, levels in enumerate(self._known)}
        return write_state(
            "evolution",
            self._context.space,
            known=[list(levels) for levels in index],
            told=[[index[levels], list(told.values), told.violation, told.noise] for levels, told in self._told],
            pending=[index[levels] for levels in self._pending],
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        fields = read_state(state, "evolution", self._context.space, ("known", "told", "pending"))
        known = [read_levels(levels, self._context.space) for levels in fields["known"]]
        self._reset()
        self._known.update(known)
        self._pending = dict.fromkeys(known[i] for i in fields["pending"])
        for i, values, violation, noise in fields["told"]:
            self._add(known[i], _Told(values=list(values), violation=violation, noise=noise))

    def _values_of(self, trial: Completed | EarlyStopped) -> list[float | None]:
        """Return every predicted metric as measured, objectives first. Only metrics after them may be absent (None)."""
        self._context.check(trial)
        return [
            metric.signed(float(trial.metrics[metric.name].value)) if metric.name in trial.metrics else None
            for metric in self._metrics
        ]

    def _noise_of(self, trial: Completed) -> float:
        """Return the relative standard error of the first objective; 0 if it is exact or has no interval."""
        metric = trial.metrics[self._context.objectives[0].name]
        if metric.low is None or metric.high is None or not metric.value > 0:
            return 0.0
        return float((metric.high - metric.low) / (2 * 1.96 * metric.value))

    def _add(self, levels: Levels, told: _Told) -> None:
        """Add a result or an estimate. The first result of a candidate stays; an estimate counts until there is one."""
        if levels in self._archive or (told.violation is None and levels in self._estimates):
            return
        self._told.append((levels, told))
        measured = np.array(told.values, dtype=np.float64)  # None becomes NaN
        values = np.maximum(measured, self._thresholds)
        # the time and the rows of a fit follow from the told trials alone: a resumed search fits as the first one did
        self._fit()
        if self._surrogate.ready and len(self._archive) >= MIN_FIT:
            predicted = self._surrogate.predict(np.array([levels], dtype=np.int16))
            self._record_improvement(predicted, values, told)
            if told.violation is not None:
                self._log.add(self._surrogate.unscale(predicted)[0], values)
        if told.violation is None:
            self._estimates[levels] = told.values
            return
        self._estimates.pop(levels, None)
        self._archive.add(levels, values[: len(self._context.objectives)], told.violation)
        self._values.append(told.values)
        self._noise.append(told.noise)
        if len(self._archive) >= self._next_fit:
            self._next_fit = len(self._archive) + max(1, len(self._archive) // 25)
            estimates = list(self._estimates.items())[-N_ESTIMATES:]
            self._fit_due = self._archive.training_rows(), estimates

    def _record_improvement(self, predicted: FloatArray, values: FloatArray, told: _Told) -> None:
        """Record the predicted improvement of the front beside the actual one, which is 0 after an early stop."""
        if not self._archive.front.size:
            return
        n = len(self._context.objectives)
        reference, noise = self._surrogate.scale(self._archive.values[self._archive.front]), self._noise_in_scale(n)
        expected = float(hypervolume_improvement(predicted[:, :n], reference, noise)[0])
        actual = 0.0
        if told.violation == 0.0:
            actual = float(hypervolume_improvement(self._surrogate.scale(values[None, :n]), reference, np.zeros(n))[0])
        self._discount.add(predicted[0, :n], expected, actual)

    def _fit(self) -> None:
        """Run the fit that is due, if one is."""
        if self._fit_due is None:
            return
        rows, estimates = self._fit_due
        levels = np.concatenate([self._archive.levels[rows], _rows([key for key, _ in estimates], len(self._n_levels))])
        values = [self._values[row] for row in rows] + [value for _, value in estimates]
        weights = np.repeat([1.0, ESTIMATE_WEIGHT], [len(rows), len(estimates)])
        self._surrogate.fit(levels, np.array(values, dtype=np.float64), weights)
        self._fit_due, self._is_derived = None, False

    def _propose_and_await(self) -> Levels | None:
        levels = self._propose()
        if levels is not None:
            self._pending[levels] = None
        return levels

    def _propose(self) -> Levels | None:
        if self._known.exhausted:
            return None
        rng = self._known.rng(self._context.seed)
        for levels in self._first:
            if levels not in self._known:
                return levels
        if len(self._archive) < (MIN_FIT if self._first else max(MIN_FIT, self._initial // 4)):
            return self._random(rng)
        self._fit()
        if not self._is_derived:
            self._derive()
        pool, predicted, awaited = self._pool(rng)
        for row in self._screen(predicted, awaited, rng):
            if (levels := tuple(pool[row].tolist())) not in self._known:
                return levels
        best = self._archive.elite()[0]
        return self._known.near(tuple(self._archive.levels[best].tolist()), rng)

    def _derive(self) -> None:
        """Derive the steps, the sweep of every cost and the predicted front from the scores of the last fit."""
        scores = self._surrogate.scores() if self._surrogate.has_table else None
        self._steps = [Steps(self._n_levels, scores, cost) for cost in self._budget.costs] or [
            Steps(self._n_levels, None, None)
        ]
        swept = _rows([], len(self._n_levels))
        if scores is not None:
            for cost in self._budget.costs:
                block = sweep_levels(np.where(np.isfinite(cost), scores, np.inf), cost, finer=False).astype(np.int16)
                block = self._budget.needed(self._budget.allowed(block), scores)
                swept = np.concatenate([swept, block[np.unique(np.linspace(0, len(block) - 1, N_SWEPT).astype(int))]])
        swept = np.concatenate([swept, *(_rows(front, len(self._n_levels)) for front in self._proxy_fronts)])
        self._swept = swept
        if self._surrogate.ready:
            rng = np.random.default_rng([self._context.seed & 0xFFFF_FFFF_FFFF_FFFF, 1, len(self._archive)])
            start = np.concatenate([swept, self._archive.levels[self._archive.elite()]])
            self._swept = np.concatenate(
                [swept, local_search(start, self._predict, self._steps, self._budget.allowed, rng)]
            )
        self._swept_predicted = self._surrogate.predict(self._swept)
        self._is_derived = True

    def _predict(self, levels: LevelArray) -> FloatArray:
        """Return the predicted objectives in the scale of the surrogate; with limits, the excess is one more."""
        predicted = self._surrogate.predict(levels)
        objectives = predicted[:, : len(self._context.objectives)]
        if not self._context.limits:
            return objectives
        excess = predicted_excess(self._context, self._metrics, self._surrogate.unscale(predicted))
        return np.column_stack([objectives, excess])

    def _breed(self, rng: np.random.Generator) -> LevelArray:
        """Return children of neighbours in the elite, and of the sweep, shape (children, groups)."""
        elite = self._archive.elite()
        by = int(rng.integers(self._archive.values.shape[1]))
        order = elite[np.argsort(self._archive.values[elite, by], kind="stable")]
        parents = rng.integers(0, len(order), size=self._children)
        step = rng.integers(1, 4, size=self._children) * rng.choice([-1, 1], size=self._children)
        partners = np.clip(parents + step, 0, len(order) - 1)
        steps = self._steps[int(rng.integers(len(self._steps)))]
        mothers = self._archive.levels[order[parents]]
        if len(self._swept):
            from_sweep = np.flatnonzero(rng.random(self._children) < 0.25)
            mothers[from_sweep] = self._swept[rng.integers(0, len(self._swept), size=from_sweep.size)]
        return offspring(mothers, self._archive.levels[order[partners]], steps, rng)

    def _pool(self, rng: np.random.Generator) -> tuple[LevelArray, FloatArray, FloatArray]:
        """Return children and the sweep, shape (n, groups), their predicted metrics, (n, metrics), and those of the
        candidates under evaluation, (m, metrics)."""
        pending = _rows(list(self._pending)[-N_PENDING:], len(self._n_levels))
        children = self._breed(rng)
        pool = np.concatenate([children, self._swept])
        of_children, awaited = np.split(self._surrogate.predict(np.concatenate([children, pending])), [len(children)])
        predicted = np.concatenate([of_children, self._swept_predicted])
        keep = self._budget.keeps(pool) & ~self._needless(predicted)
        return (pool[keep], predicted[keep], awaited) if keep.any() else (pool, predicted, awaited)

    def _needless(self, predicted: FloatArray) -> NDArray[np.bool_]:
        """Return the mask, shape (n,), of candidates predicted below the threshold and dearer than a known one."""
        n, known = len(self._context.objectives), self._archive.values[self._archive.front]
        known = known[known[:, 0] <= self._thresholds[0]]
        if not (self._surrogate.ready and len(known)):
            return np.zeros(len(predicted), dtype=np.bool_)
        known = self._surrogate.scale(known)
        dearer = np.any(np.all(predicted[:, None, 1:n] >= known[None, :, 1:], axis=2), axis=1)
        return np.asarray(dearer & (predicted[:, 0] <= known[:, 0].max()))

    def _screen(self, predicted: FloatArray, awaited: FloatArray, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the order in which the pool is worth trying."""
        shuffled = rng.permutation(len(predicted))
        if not self._surrogate.ready or rng.random() < self._share_unscreened():
            return shuffled
        best = self._archive.front if self._archive.front.size else self._archive.elite()
        n = len(self._context.objectives)
        reference = self._surrogate.scale(self._archive.values[best])
        reference = np.concatenate([reference, awaited[:, :n]])
        predicted = predicted[shuffled]
        worth = hypervolume_improvement(predicted[:, :n], reference, self._noise_in_scale(n))
        span = np.ptp(reference, axis=0)
        improving = np.flatnonzero(worth > 0)
        worth[improving] *= self._discount.factor(predicted[improving, :n], np.where(span > 0, span, 1.0))
        excess = predicted_excess(self._context, self._metrics, self._surrogate.unscale(predicted))
        return np.asarray(shuffled[np.lexsort((-worth, excess))])

    def _share_unscreened(self) -> float:
        """Return the share of proposals without screening.

        It is `exploration` if the predictions of the quality are good or not judged yet, and larger if they are bad.
        """
        trust = self._log.trust(self._surrogate, 0)
        return self._exploration if trust is None else max(self._exploration, DISTRUST * (1.0 - trust))

    def _noise_in_scale(self, n: int) -> FloatArray:
        """Return the difference that noise may make, shape (n,): the relative standard error of a log quality."""
        noise = np.zeros(n)
        if self._surrogate.is_logarithmic(0):
            noise[0] = PAIRED * float(np.median(self._noise[-N_NOISE:]))
        return noise

    def _random(self, rng: np.random.Generator) -> Levels | None:
        """Return a candidate of a random budget: the probability of cheap levels is drawn first, then the levels."""
        draws = rng.binomial(self._n_levels - 1, rng.random((32, 1)))
        for row in self._budget.allowed(draws.astype(np.int16)).tolist():
            if (levels := tuple(row)) not in self._known:
                return levels
        return self._known.random_new(rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """A result, or the estimate of a candidate that was stopped early.

    values     every predicted metric as measured, minimised; None where it is absent
    violation  violation of the limits; None for an estimate
    noise      relative standard error of the quality
    """

    values: list[float | None]
    violation: float | None
    noise: float


def _rows(levels: Sequence[Levels], n_groups: int) -> LevelArray:
    return np.array(levels, dtype=np.int16).reshape(-1, n_groups)


def _interleaved(first: list[Levels], others: Sequence[Sequence[Levels]]) -> list[Levels]:
    """Return the sweep with the looks at the proxies after every second of its candidates, without repetitions."""
    looks = [levels for turn in zip_longest(*others) for levels in turn if levels is not None and levels not in first]
    found: list[Levels] = []
    for at, levels in enumerate(first, 1):
        found.append(levels)
        if at % 2 == 0 and looks:
            found.append(looks.pop(0))
    return list(dict.fromkeys([*found, *looks]))


def _check_options(initial: int, children: int, exploration: float) -> None:
    for name, value in (("initial", initial), ("children", children)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} of searcher 'evolution' must be a whole number of at least 1, got {value!r}")
    if isinstance(exploration, bool) or not isinstance(exploration, (int, float)) or not 0.0 <= exploration <= 1.0:
        raise InputError(f"exploration of searcher 'evolution' must be in [0, 1], got {exploration!r}")
