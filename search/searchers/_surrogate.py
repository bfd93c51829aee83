"""What a candidate will be worth, guessed from the sensitivity table and corrected by every true evaluation.

The table says what each layer does alone; together they do not simply add up. With t[g, l] the table's divergence and
S = Σ_g t[g, l_g], the log of the true divergence is modelled as log S plus a correction that is linear in

    1, log S, (log S)²           the whole saturates, or compounds
    w_g = t[g, l_g] / S          to first order, the effect of multiplying layer g's scores by a coefficient
    w_g · [l_g = l]              the same, for one level of the layer (where the space is small enough)

by ridge regression, its strength by leave-one-out. So with no evaluation it is the additive estimate, and with many
each layer's scores are refitted to what was seen. An objective that the table gives exactly (bytes, MACs) is looked
up, any other is regressed likewise; without a table the features are the levels themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .._sweep import pad
from ._base import SearchContext

FloatArray: TypeAlias = NDArray[np.float64]

MAX_LEVEL_FEATURES = 1200
"""A space with more (group, level) pairs than this gets one coefficient for each group instead."""
RIDGES = (0.003, 0.03, 0.3, 3.0)


class Surrogate:
    """Predicts objectives in the scale in which progress is judged (`scale`): shape (n, objectives), minimised."""

    def __init__(self, context: SearchContext) -> None:
        self.n_levels = np.array(context.space.n_levels)
        self._n = len(context.objectives)
        self._groups = np.arange(len(self.n_levels))
        self._offsets = np.concatenate(([0], np.cumsum(self.n_levels)[:-1]))
        self._by_level = int(self.n_levels.sum()) <= MAX_LEVEL_FEATURES
        self._scores: FloatArray | None = None
        self._costs: dict[int, FloatArray] = {}  # objective -> its share by group and level, minimised
        self._fixed: dict[int, float] = {}
        if context.table is not None:
            self._scores = _finite(np.maximum(pad(context.table.divergence), 0.0))
            for j, objective in enumerate(context.objectives):
                if objective.name in context.table.costs:
                    self._costs[j] = objective.key(1.0) * _finite(pad(context.table.costs[objective.name]))
                    self._fixed[j] = objective.key(context.table.fixed.get(objective.name, 0.0))
        self._floor = 0.0 if self._scores is None else 1e-3 * float(np.median(self._scores)) or 1e-12
        self._centre = 0.0
        self._log: dict[int, float] = {}
        self._models: dict[int, _Model] = {}

    @property
    def has_table(self) -> bool:
        return self._scores is not None

    @property
    def ready(self) -> bool:
        """Whether predictions mean something: there was a fit, or every objective is looked up."""
        return bool(self._models) or set(self._costs) == set(range(self._n))

    def scores(self) -> FloatArray:
        """The table's divergences refitted to the first objective that is not a cost, shape (groups, most levels).

        Raises `RuntimeError` without a table (see `has_table`).
        """
        scores = self._table()
        j = next((j for j in self._models if j not in self._costs), None)
        if j is None:
            return scores
        model, n = self._models[j], len(self._groups)
        slope = model.slope + model.weights[0] / 3.0  # of the objective over log S
        if slope <= 1e-3 * abs(model.slope) + 1e-12:
            return scores
        factor = np.repeat(model.weights[3 : 3 + n, None], scores.shape[1], axis=1)
        if self._by_level:
            for g, (offset, count) in enumerate(zip(self._offsets + 3 + n, self.n_levels, strict=True)):
                factor[g, :count] += model.weights[offset : offset + count]
        return np.asarray(scores * np.exp(np.clip(factor / slope, -2.0, 2.0)))

    def scale(self, values: FloatArray) -> FloatArray:
        """Objectives as progress is judged: those that span magnitudes (divergences) by their logarithm."""
        scaled = values.astype(np.float64, copy=True)
        for j, shift in self._log.items():
            scaled[:, j] = np.log(np.maximum(scaled[:, j], 0.0) + shift)
        return scaled

    def fit(self, levels: NDArray[np.integer], values: FloatArray) -> None:
        """Refits to these evaluations, and to nothing else. Some milliseconds; some tens in the largest spaces."""
        self._choose_scales(values)
        targets = self.scale(values)
        if self._scores is not None:
            self._centre = float(np.mean(self._log_sum(levels)))
        self._models = {}
        for j in range(self._n):
            if j in self._costs and np.allclose(self._lookup(j, levels), values[:, j], rtol=1e-6, atol=0.0):
                continue
            guess = self._guess(j, levels)
            slope = 1.0 if j in self._log and self._scores is not None else _slope(guess, targets[:, j])
            rest = targets[:, j] - slope * guess
            mean = float(rest.mean())
            self._models[j] = _Model(slope=slope, mean=mean, weights=_ridge(self._features(j, levels), rest - mean))

    def predict(self, levels: NDArray[np.integer]) -> FloatArray:
        """Objectives of the candidates `levels`, shape (n, groups), in the scale of `scale`."""
        out = np.empty((len(levels), self._n))
        for j in range(self._n):
            guess = self._guess(j, levels)
            if (model := self._models.get(j)) is None:
                out[:, j] = guess
            else:
                out[:, j] = model.slope * guess + model.mean + self._features(j, levels) @ model.weights
        return out

    def _table(self) -> FloatArray:
        if self._scores is None:
            raise RuntimeError("a surrogate without a table has no scores")
        return self._scores

    def _lookup(self, j: int, levels: NDArray[np.integer]) -> FloatArray:
        return np.asarray(self._costs[j][self._groups, levels].sum(axis=1) + self._fixed[j])

    def _log_sum(self, levels: NDArray[np.integer]) -> FloatArray:
        return np.asarray(np.log(self._table()[self._groups, levels].sum(axis=1) + self._floor))

    def _guess(self, j: int, levels: NDArray[np.integer]) -> FloatArray:
        """What the table says, before any correction; zeros without one."""
        if j in self._costs:
            return self._lookup(j, levels)
        return np.zeros(len(levels)) if self._scores is None else self._log_sum(levels)

    def _features(self, j: int, levels: NDArray[np.integer]) -> FloatArray:
        n, n_groups = levels.shape
        if self._scores is None:
            if not self._by_level:
                return np.asarray(levels / np.maximum(self.n_levels - 1, 1) - 0.5)
            return self._one_hot(levels, np.full((n, n_groups), 1.0 / np.sqrt(n_groups)))
        if j in self._costs:
            own = self._costs[j][self._groups, levels]
            whole = float(np.abs(self._costs[j]).max(axis=1).sum()) or 1.0
            shares = own / whole
            x = shares.sum(axis=1)
        else:
            own = self._scores[self._groups, levels]
            shares = own / (own.sum(axis=1, keepdims=True) + self._floor)
            x = (self._log_sum(levels) - self._centre) / 3.0
        head = np.column_stack([x, x**2, x**3, shares])
        return np.concatenate([head, self._one_hot(levels, shares)], axis=1) if self._by_level else head

    def _one_hot(self, levels: NDArray[np.integer], shares: FloatArray) -> FloatArray:
        out = np.zeros((len(levels), int(self.n_levels.sum())))
        np.put_along_axis(out, self._offsets + levels, shares, axis=1)
        return out

    def _choose_scales(self, values: FloatArray) -> None:
        """By its logarithm: what is no cost, is never negative, and spans more than a factor of 20."""
        self._log = {}
        for j in range(self._n):
            column = values[:, j]
            positive = column[column > 0]
            if j in self._costs or positive.size == 0 or (column < 0).any():
                continue
            if positive.max() > 20 * (positive.min() if self._scores is not None else np.median(positive)):
                self._log[j] = float(positive.min())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """objective = slope · guess + mean + features @ weights"""

    slope: float
    mean: float
    weights: FloatArray


def _finite(values: FloatArray) -> FloatArray:
    """A level that could not be measured counts as the worst that could."""
    usable = np.isfinite(values)
    return np.where(usable, values, float(values[usable].max()) if usable.any() else 0.0)


def _slope(guess: FloatArray, target: FloatArray) -> float:
    spread = guess - guess.mean()
    power = float(spread @ spread)
    return float(spread @ target) / power if power > 0 else 0.0


def _ridge(features: FloatArray, target: FloatArray) -> FloatArray:
    """Weights of the ridge regression whose strength has the least leave-one-out error. (n, f), (n,) -> (f,)."""
    kernel = features @ features.T
    eigenvalues, vectors = np.linalg.eigh(kernel)
    eigenvalues = np.maximum(eigenvalues, 0.0)
    projected = vectors.T @ target
    unit = max(float(eigenvalues.sum()) / len(target), 1e-12)
    best, chosen = np.inf, np.zeros(len(target))
    for ridge in RIDGES:
        inverse = 1.0 / (eigenvalues + ridge * unit)
        alpha = vectors @ (inverse * projected)
        diagonal = (vectors**2 * inverse).sum(axis=1)
        error = float(np.mean((alpha / diagonal) ** 2))
        if error < best:
            best, chosen = error, alpha
    return np.asarray(features.T @ chosen)
