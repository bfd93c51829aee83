"""Predictor of divergence and quality of candidates that were not tried, from the trials of a run.

The divergence comes from the table's scores, refitted to all results and estimates (`Surrogate`). The quality comes
from the divergence, by the monotone curve through the trials. Errors are those of full results outside the fit: five
folds.

An alternative was tried: the quality by a `Surrogate` of its own. On three runs of ResNet-20 it explained 0, 72 and
77 % of the accuracy's variance, and predicted 90.5 % for the unchanged model, which has 91.6 %. The curve explains 91,
96 and 99 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..._arrays import FloatArray
from ...evaluators import Measurement
from ..searchers import SearchContext, Surrogate, rank_correlation
from ..values import Completed, EarlyStopped, LowFidelity, Objective, SearchSpace, SensitivityTable, Trial
from ._isotonic import Falling

FOLDS = 5
MIN_TRIALS = 8
"""Least number of results for a fit. With fewer the table stands alone, and the quality is not predicted."""
MAX_TRIALS = 512
"""Most results in a fit: the latest, which are nearest to the front. A fit takes cubic time."""
NEIGHBOURS = 24
"""Number of held-out errors behind an interval: those at the nearest predictions."""
MIN_SHARE = 0.2
"""Least share of the variance that the curve has to explain; below it, the quality is not predicted."""

DIVERGENCE = Objective(name="divergence")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The accuracy of predictions of held-out results.

    n      number of results
    error  root mean square error: of the natural logarithm of the divergence, else in the metric's unit
    rank   Spearman's correlation of predictions and results
    share  share of the variance that is explained, in [0, 1], in the scale of `error`
    """

    n: int
    error: float
    rank: float
    share: float

    @classmethod
    def of(cls, truth: FloatArray, predicted: FloatArray) -> Trust:
        """Compare predictions with results, both of shape (n,)."""
        power, spread = float(np.mean((truth - predicted) ** 2)), float(np.var(truth))
        share = min(1.0, max(0.0, 1.0 - power / spread)) if spread > 0 else 0.0
        return cls(n=len(truth), error=math.sqrt(power), rank=rank_correlation(truth, predicted), share=share)

    def to_dict(self) -> dict[str, float]:
        """Return JSON builtins, as in `paredown resolve --json`."""
        return {"n": self.n, "error": self.error, "rank": self.rank, "share": self.share}


class Predictor:
    """A model of the divergence of any candidate, and of the quality if it is another metric.

    trust  metric -> accuracy of held-out predictions; empty if there are too few results
    """

    def __init__(
        self, space: SearchSpace, table: SensitivityTable, trials: Sequence[Trial], quality: Objective, seed: int
    ) -> None:
        judged = [t for t in trials if isinstance(t, Completed | EarlyStopped | LowFidelity) and t.kind != "original"]
        usable = [t for t in judged if "divergence" in t.metrics][-MAX_TRIALS:]
        self._table, self._quality = table, quality
        self._context = SearchContext(space=space, objectives=(DIVERGENCE,), seed=seed, table=table, limits={})
        self._model = Surrogate(self._context)
        self._measured = {t.candidate.levels: t.metrics for t in usable if isinstance(t, Completed)}
        self.trust: dict[str, Trust] = {}
        full = np.array([isinstance(t, Completed) for t in usable], dtype=np.bool_)
        self._is_fitted = int(full.sum()) >= MIN_TRIALS
        if not self._is_fitted:
            return
        self._like = {name: m for t in usable for name, m in t.metrics.items()}
        levels = np.array([t.candidate.levels for t in usable], dtype=np.int32)
        values = np.array([[t.metrics["divergence"].value] for t in usable], dtype=np.float64)
        self._model.fit(levels, values)
        positive = values[values > 0]
        self._floor = 0.5 * float(positive.min()) if positive.size else 1e-12
        fold = np.random.default_rng(seed).permutation(len(usable)) % FOLDS
        held_out, truth = self._log(self._held_out(levels, values, fold)), self._log(values[:, 0])
        self.trust["divergence"] = Trust.of(truth[full], held_out[full])
        self._errors = {"divergence": (held_out[full], truth[full] - held_out[full])}
        if quality.name != DIVERGENCE.name:
            found = np.array([t.metrics[quality.name].value if quality.name in t.metrics else np.nan for t in usable])
            there = full & ~np.isnan(found)
            self._learn_quality(held_out[there], found[there], fold[there], [t for t in trials if t.kind == "original"])

    def scores(self) -> FloatArray:
        """Return additive divergences, shape (groups, most levels); infinite for absent levels."""
        scores = self._model.scores().copy()
        for g, row in enumerate(self._table.divergence):
            scores[g, len(row) :] = np.inf
            scores[g, : len(row)][~np.isfinite(row)] = np.inf
        return scores

    def can_predict(self, name: str) -> bool:
        """Say whether a prediction of this metric is worth more than none. For the divergence it always is."""
        return name == "divergence" or (name in self.trust and self.trust[name].share >= MIN_SHARE)

    def predict(self, levels: Sequence[int]) -> dict[str, Measurement]:
        """Return the divergence, and the quality if it can be predicted, with 95 % intervals from held-out errors.

        An evaluated candidate has its measured values. Without enough results there is only the divergence, as the sum
        of the table, without an interval. Neutral levels have no divergence.
        """
        if (known := self._measured.get(tuple(levels))) is not None:
            return {name: known[name] for name in ("divergence", self._quality.name) if name in known}
        total = sum(row[level] for row, level in zip(self._table.divergence, levels, strict=True))
        if not self._is_fitted:
            return {"divergence": Measurement(value=float(total), source="predicted")}
        value = 0.0
        if total > 0.0:
            scaled = self._model.predict(np.array([levels], dtype=np.int32))
            value = max(0.0, float(self._model.unscale(scaled)[0, 0]))
        at = float(self._log(np.array([value]))[0])
        half = 1.96 * self._error_near("divergence", at) if value > 0.0 else 0.0
        found = {"divergence": self._measurement("divergence", value, value * math.exp(-half), value * math.exp(half))}
        name = self._quality.name
        if name != "divergence" and self.can_predict(name):
            sign = self._quality.signed(1.0)
            mean = -sign * float(self._curve(np.array([at]))[0])
            half = 1.96 * self._error_near(name, at)
            found[name] = self._measurement(name, mean, mean - half, mean + half)
        return found

    def _measurement(self, name: str, value: float, low: float, high: float) -> Measurement:
        like, n = self._like[name], self.trust[name].n
        if like.unit == "fraction":
            low, high = max(low, 0.0), min(high, 1.0)
        return Measurement(
            value=value, low=low, high=high, unit=like.unit, source="predicted", split="search", n=n
        )  # fmt: skip

    def _log(self, values: FloatArray) -> FloatArray:
        return np.asarray(np.log(np.maximum(values, self._floor)))

    def _error_near(self, name: str, at: float) -> float:
        """Return the root mean square of the held-out errors nearest to the prediction `at`."""
        where, errors = self._errors[name]
        near = np.argsort(np.abs(where - at), kind="stable")[:NEIGHBOURS]
        return float(np.sqrt(np.mean(errors[near] ** 2)))

    def _held_out(self, levels: NDArray[np.int32], values: FloatArray, fold: NDArray[np.int64]) -> FloatArray:
        """Return each divergence as predicted by a fit without its fold, shape (n,)."""
        predicted = np.empty(len(values))
        for k in range(FOLDS):
            model, out = Surrogate(self._context), fold == k
            model.fit(levels[~out], values[~out])
            predicted[out] = model.unscale(model.predict(levels[out]))[:, 0]
        return predicted

    def _learn_quality(
        self, at: FloatArray, found: FloatArray, fold: NDArray[np.int64], original: Sequence[Trial]
    ) -> None:
        """Fit the quality, signed so that high is best, as a falling function of the log of predicted divergence."""
        if len(found) < MIN_TRIALS:
            return
        sign = -self._quality.signed(1.0)
        anchors = [t for t in original if isinstance(t, Completed) and self._quality.name in t.metrics]
        ends = np.array([sign * t.metrics[self._quality.name].value for t in anchors])
        starts = np.full(len(ends), self._log(np.zeros(1))[0])

        def curve(x: FloatArray, y: FloatArray) -> Falling:
            return Falling.fit(np.concatenate([starts, x]), np.concatenate([ends, sign * y]))

        self._curve = curve(at, found)
        predicted = np.empty(len(found))
        for k in range(FOLDS):
            out = fold == k
            predicted[out] = sign * curve(at[~out], found[~out])(at[out])
        self.trust[self._quality.name] = Trust.of(found, predicted)
        self._errors[self._quality.name] = (at, found - predicted)
