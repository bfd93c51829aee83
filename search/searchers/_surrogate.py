"""Surrogate: it predicts the metrics of candidates from the sensitivity table, corrected by every evaluation.

The table has the effect of each layer alone, and together the effects do not simply add up. With t[g, l] the table's
divergence and S = Σ_g t[g, l_g], the log of the true divergence is modelled as log S plus a correction, linear in

    1, log S, (log S)²           the whole saturates, or compounds
    log (P / S)                  P is the divergence by `Superposition`, which knows which layers perturb the outputs in
                                 the same direction; only if the table has the output perturbations
    w_g = t[g, l_g] / S          to first order, the effect of multiplying layer g's scores by a coefficient
    w_g · [l_g = l]              the same, for one level of the layer (where the space is small enough)
    c_g                          layer g's share of P, negative if it opposes the others (likewise)
    log (Q / S)                  Q is the sum of a proxy of the table, such as the weights' error: so the evaluations
                                 say which of the proxies foretell this net

    √w_g · √w_h                  errors of two layers that point the same way, or against each other: |a + b|² has 2 a·b

by ridge regression in its kernel form. The last line is a squared inner product, so 400 groups cost no more than 20.
The strength and the pairs (none, those of neighbouring layers, or all) are chosen by leave-one-out error. So without
evaluations the prediction is the additive estimate, and it stays near that while evaluations are few or noisy. With
many, the scores of each layer are refitted to the results. An objective that the table gives exactly (bytes, MACs) is
looked up, any other is regressed likewise. Without a table the features are the levels themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..._arrays import FloatArray
from ..allocation import pad
from ..values import Objective, Superposition
from ._base import SearchContext
from ._shrunk_table import proxy_scores

Pairing: TypeAlias = Literal["none", "near", "all"]

MAX_LEVEL_FEATURES = 1200
"""Most (group, level) pairs with a coefficient each; a larger space has one coefficient for each group."""
RIDGES = (0.003, 0.03, 0.3, 3.0)
"""Strengths of the ridge that leave-one-out chooses from."""
PAIRS: tuple[tuple[float, Pairing], ...] = ((0.0, "none"), (0.3, "near"), (3.0, "near"), (0.3, "all"), (3.0, "all"))
"""Weights of the pairs beside the linear features, and the pairs, for leave-one-out to choose; of equals the first."""
PROXY_WEIGHT = 2.0
"""Weight of the proxies' sums beside the other linear features: a few results should tell which of them foretells."""
SHARE_WEIGHT = 0.5
"""Weight of the shares by superposition beside the other linear features."""
NEAR = 2
"""Largest distance of neighbouring groups in the order of the model."""


class Surrogate:
    """A model of metrics, in the scale in which progress is judged (`scale`): shape (n, metrics), minimised.

    metrics  the objectives, and other metrics to predict, such as limited ones; None: the objectives
    """

    def __init__(self, context: SearchContext, metrics: Sequence[Objective] | None = None) -> None:
        metrics = context.objectives if metrics is None else tuple(metrics)
        self.n_levels = np.array(context.space.n_levels)
        self._n = len(metrics)
        self._thresholds = [metric.indifference_threshold for metric in metrics]
        self._groups = np.arange(len(self.n_levels))
        self._offsets = np.concatenate(([0], np.cumsum(self.n_levels)[:-1]))
        self._by_level = int(self.n_levels.sum()) <= MAX_LEVEL_FEATURES
        self._scores: FloatArray | None = None
        self._costs: dict[int, FloatArray] = {}  # metric -> its share by group and level, minimised
        self._fixed: dict[int, float] = {}
        if context.table is not None:
            self._scores = _finite(np.maximum(pad(context.table.divergence), 0.0))
            for j, objective in enumerate(metrics):
                if objective.name in context.table.costs:
                    self._costs[j] = objective.signed(1.0) * _finite(pad(context.table.costs[objective.name]))
                    self._fixed[j] = objective.signed(context.table.fixed.get(objective.name, 0.0))
        self._floor = 0.0 if self._scores is None else 1e-3 * float(np.median(self._scores)) or 1e-12
        self._soft_floor = self._floor
        self._centre, self._lead = 0.0, 0.0
        self._superposition: Superposition | None = None
        if context.table is not None and context.table.perturbations is not None:
            self._superposition = Superposition(context.table.perturbations, context.table.divergence)
        self._proxies: list[FloatArray] = []
        if context.table is not None and self._scores is not None:
            self._proxies = proxy_scores(context.table)
        self._proxy_leads = np.zeros(len(self._proxies))
        # metric -> (offset, shift): judged by log(value - offset + shift)
        self._log: dict[int, tuple[float, float]] = {}
        self._models: dict[int, _Model] = {}

    @property
    def has_table(self) -> bool:
        """True if the context has a sensitivity table."""
        return self._scores is not None

    @property
    def ready(self) -> bool:
        """True if predictions mean something: there was a fit, or every metric is looked up."""
        return bool(self._models) or set(self._costs) == set(range(self._n))

    def scores(self) -> FloatArray:
        """Return the table's divergences, refitted to the first metric that is no cost, shape (groups, most levels).

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
        for proxy, weight in zip(self._proxies, model.weights[len(model.weights) - len(self._proxies) :], strict=True):
            factor += PROXY_WEIGHT * weight * np.log((proxy + self._soft_floor) / (scores + self._soft_floor))
        return np.asarray(scores * np.exp(np.clip(factor / slope, -2.0, 2.0)))

    def scale(self, values: FloatArray) -> FloatArray:
        """Return metrics (or the first few) as progress is judged: by the logarithm if they span magnitudes."""
        scaled = values.astype(np.float64, copy=True)
        for j in self._log:
            if j < values.shape[1]:
                scaled[:, j] = self._scaled_alone(j, scaled[:, j])
        return scaled

    def _scaled_alone(self, j: int, values: FloatArray | float) -> FloatArray:
        if j not in self._log:
            return np.asarray(values)
        offset, shift = self._log[j]
        return np.asarray(np.log(np.maximum(np.asarray(values) - offset, 0.0) + shift))

    def unscale(self, scaled: FloatArray) -> FloatArray:
        """Return the metrics of scaled ones: the inverse of `scale`."""
        values = scaled.astype(np.float64, copy=True)
        for j, (offset, shift) in self._log.items():
            values[:, j] = np.exp(values[:, j]) - shift + offset
        return values

    def fit(self, levels: NDArray[np.integer], values: FloatArray, weights: FloatArray | None = None) -> None:
        """Fit to these evaluations, and to nothing else, in some milliseconds (some tens in the largest spaces).

        levels   (n, groups)
        values   (n, metrics), minimised; NaN where a value is absent
        weights  (n,), above 0: 1 for a result, less for an estimate; None: all 1
        """
        weights = np.ones(len(levels)) if weights is None else weights
        self._choose_scales(values)
        targets = self.scale(values)
        if self._scores is not None:
            self._centre = float(np.mean(self._log_sum(levels)))
            self._proxy_leads = self._leads(levels).mean(axis=0)
        if self._superposition is not None:
            self._lead = float(np.mean(self._superposed(levels)[0]))
        self._models = {}
        for j in range(self._n):
            there = ~np.isnan(values[:, j])
            own, target = levels[there], targets[there, j]
            if not there.any() or (j in self._costs and np.allclose(self._lookup(j, own), target, rtol=1e-6, atol=0.0)):
                continue
            guess, linear, roots = self._features(j, own)
            slope = 1.0 if self._log.get(j, (1.0, 0.0))[0] == 0.0 else _slope(guess, target)
            rest = target - slope * guess
            mean = float(np.average(rest, weights=weights[there]))
            alpha, (share, pairing), error = _ridge(linear, roots, rest - mean, weights[there])
            self._models[j] = _Model(
                slope=slope, mean=mean, weights=linear.T @ alpha, pairing=pairing, roots=roots, alpha=share * alpha,
                loo_rmse=error,
            )  # fmt: skip

    def predict(self, levels: NDArray[np.integer]) -> FloatArray:
        """Return the metrics of candidates in the scale of `scale`, shape (n, metrics).

        No prediction of a fitted metric is below its indifference threshold.

        levels  (n, groups)
        """
        out = np.empty((len(levels), self._n))
        for j in range(self._n):
            if (model := self._models.get(j)) is None:
                out[:, j] = self._lookup(j, levels) if j in self._costs else self._features(j, levels)[0]
            else:
                guess, linear, roots = self._features(j, levels)
                out[:, j] = model.slope * guess + model.mean + linear @ model.weights
                if model.alpha.any():
                    out[:, j] += _pairs(roots, model.roots, model.pairing) @ model.alpha
                if math.isfinite(self._thresholds[j]):
                    out[:, j] = np.maximum(out[:, j], self._scaled_alone(j, self._thresholds[j]))
        return out

    def is_logarithmic(self, j: int) -> bool:
        """Say whether metric j is judged by its own logarithm, not by that of its distance from the best."""
        return j in self._log and self._log[j][0] == 0.0

    def loo_rmse(self, j: int) -> float | None:
        """Return the leave-one-out error of metric j, in the scale of `scale`; None if it was not fitted."""
        return self._models[j].loo_rmse if j in self._models else None

    def _table(self) -> FloatArray:
        if self._scores is None:
            raise RuntimeError("a surrogate without a table has no scores; check `has_table` first")
        return self._scores

    def _lookup(self, j: int, levels: NDArray[np.integer]) -> FloatArray:
        return np.asarray(self._costs[j][self._groups, levels].sum(axis=1) + self._fixed[j])

    def _log_sum(self, levels: NDArray[np.integer]) -> FloatArray:
        return np.asarray(np.log(self._table()[self._groups, levels].sum(axis=1) + self._soft_floor))

    def _features(self, j: int, levels: NDArray[np.integer]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the estimate of the table (zeros without one), the linear features, and the roots whose pairs count.

        Shapes (n,), (n, features), (n, groups); the roots are (n, 0) where pairs mean nothing.
        """
        n, n_groups = levels.shape
        none = np.zeros((n, 0))
        if self._scores is None:
            if not self._by_level:
                return np.zeros(n), levels / np.maximum(self.n_levels - 1, 1) - 0.5, none
            return np.zeros(n), self._one_hot(levels, np.full((n, n_groups), 1.0 / np.sqrt(n_groups))), none
        if j in self._costs:
            guess = self._lookup(j, levels)
            shares = self._costs[j][self._groups, levels] / (float(np.abs(self._costs[j]).max(axis=1).sum()) or 1.0)
            x, roots = shares.sum(axis=1), none
        else:
            own = self._scores[self._groups, levels]
            whole = own.sum(axis=1) + self._soft_floor
            guess, shares = np.log(whole), own / whole[:, None]
            x, roots = (guess - self._centre) / 3.0, np.sqrt(shares)
        features = [x[:, None], (x**2)[:, None], (x**3)[:, None], shares]
        if self._by_level:
            features.append(self._one_hot(levels, shares))
        if self._superposition is not None and j not in self._costs:
            lead, parts = self._superposed(levels)
            features += [(lead - self._lead)[:, None], SHARE_WEIGHT * parts]
        if self._proxies and j not in self._costs:
            # the last ones: `scores` finds them there
            features.append(PROXY_WEIGHT * (self._leads(levels) - self._proxy_leads))
        return guess, np.concatenate(features, axis=1), roots

    def _leads(self, levels: NDArray[np.integer]) -> FloatArray:
        """Return log (Q / S) of each proxy, shape (n, proxies)."""
        whole = self._log_sum(levels)
        sums = [np.log(proxy[self._groups, levels].sum(axis=1) + self._soft_floor) - whole for proxy in self._proxies]
        return np.stack(sums, axis=1) if sums else np.zeros((len(levels), 0))

    def _superposed(self, levels: NDArray[np.integer]) -> tuple[FloatArray, FloatArray]:
        """Return log (P / S), shape (n,), and each group's share of P, (n, groups), or (n, 0) in a large space."""
        if self._superposition is None:
            raise RuntimeError("this surrogate's table has no output perturbations")
        found, parts = self._superposition(levels, shares=self._by_level)
        return np.log(found + self._soft_floor) - self._log_sum(levels), parts

    def _one_hot(self, levels: NDArray[np.integer], shares: FloatArray) -> FloatArray:
        out = np.zeros((len(levels), int(self.n_levels.sum())))
        np.put_along_axis(out, self._offsets + levels, shares, axis=1)
        return out

    def _choose_scales(self, values: FloatArray) -> None:
        """Choose the metrics to judge by a logarithm: those that are no cost, never negative, and span a factor of 20.

        With a table, a metric with negative values (accuracy, minimised) is judged by the logarithm of its distance
        from the best value, down to a hundredth of the range. This tells models near the original apart.
        """
        self._log, self._soft_floor = {}, self._floor
        for j in range(self._n):
            column = values[~np.isnan(values[:, j]), j]
            positive = column[column > 0]
            if j in self._costs or column.size == 0:
                continue
            if (column < 0).any():
                if self._scores is not None and np.ptp(column) > 0:
                    self._log[j] = float(column.min()), 0.01 * float(np.ptp(column))
            elif positive.size and positive.max() > 20 * (
                positive.min() if self._scores is not None else np.median(positive)
            ):
                least, threshold = float(positive.min()), self._thresholds[j]
                self._log[j] = 0.0, max(least, threshold)
                if least < threshold:  # the table's sums level off where the results do
                    self._soft_floor = max(self._floor, threshold)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """A fitted metric: slope · guess + mean + features @ weights + pairs with the fitted rows @ alpha."""

    slope: float
    mean: float
    loo_rmse: float
    weights: FloatArray
    pairing: Pairing
    roots: FloatArray
    alpha: FloatArray


def _finite(values: FloatArray) -> FloatArray:
    """Replace values that are not finite by the largest finite value."""
    usable = np.isfinite(values)
    return np.where(usable, values, float(values[usable].max()) if usable.any() else 0.0)


def _slope(guess: FloatArray, target: FloatArray) -> float:
    spread = guess - guess.mean()
    power = float(spread @ spread)
    return float(spread @ target) / power if power > 0 else 0.0


def _pairs(rows: FloatArray, others: FloatArray, pairing: Pairing) -> FloatArray:
    """Return inner products of the rows' pairs of roots, shape (rows, others): all pairs, or those of neighbours."""
    if pairing == "all":
        return np.asarray((rows @ others.T) ** 2)
    return np.asarray(_near(rows) @ _near(others).T)


def _near(roots: FloatArray) -> FloatArray:
    apart = range(1, min(NEAR, roots.shape[1] - 1) + 1)
    return np.concatenate([np.zeros((len(roots), 0)), *(roots[:, :-d] * roots[:, d:] for d in apart)], axis=1)


def _ridge(
    linear: FloatArray, roots: FloatArray, target: FloatArray, weights: FloatArray
) -> tuple[FloatArray, tuple[float, Pairing], float]:
    """Run kernel ridge regression: return coefficients of the fitted rows, shape (n,), the pairs, and the error.

    The strength and the pairs have the least leave-one-out error (α_i / K⁻¹_ii, in closed form). A row's weight divides
    its variance: with W the square roots of the weights, W K W is fitted to W · target.
    """
    root = np.sqrt(weights)
    kernel, scaled = (linear @ linear.T) * np.outer(root, root), root * target
    best, chosen, choice = np.inf, np.zeros(len(target)), PAIRS[0]
    choices = PAIRS if roots.shape[1] else PAIRS[:1]
    pairs = {name: _pairs(roots, roots, name) for name in dict.fromkeys(name for share, name in choices if share)}
    for share, pairing in choices:
        whole = kernel if share == 0.0 else kernel + share * pairs[pairing] * np.outer(root, root)
        eigenvalues, vectors = np.linalg.eigh(whole)
        eigenvalues = np.maximum(eigenvalues, 0.0)
        unit = max(float(eigenvalues.sum()) / len(target), 1e-12)
        projected = vectors.T @ scaled
        for ridge in RIDGES:
            inverse = 1.0 / (eigenvalues + ridge * unit)
            alpha = vectors @ (inverse * projected)
            error = float(np.sum((alpha / (vectors**2 * inverse).sum(axis=1)) ** 2) / weights.sum())
            if error < best:
                best, chosen, choice = error, root * alpha, (share, pairing)
    return chosen, choice, float(np.sqrt(best))
