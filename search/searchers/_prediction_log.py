"""Log of predictions beside their results, which says how far the surrogate can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..._arrays import FloatArray
from ..values import Objective
from ._surrogate import Surrogate

LOG_WINDOW = 64
"""Number of the latest predictions that are judged: older ones come from a surrogate that knew less."""
MIN_PREDICTIONS = 8
"""Least number of predictions to judge."""


class PredictionLog:
    """Predictions that were made before their results, beside the results: shape (n, metrics), minimised."""

    def __init__(self, metrics: Sequence[Objective]) -> None:
        self._metrics = tuple(metrics)
        self._pairs: list[tuple[FloatArray, FloatArray]] = []

    def __len__(self) -> int:
        return len(self._pairs)

    def add(self, predicted: FloatArray, value: FloatArray) -> None:
        """Add the metrics of a trial, each of shape (metrics,), in their own units; NaN where the result has none."""
        self._pairs.append((predicted, value))
        del self._pairs[:-LOG_WINDOW]

    def trust(self, surrogate: Surrogate, j: int) -> float | None:
        """Return 1 - error / spread of the latest results of metric j, in [0, 1]; None before `MIN_PREDICTIONS`."""
        predicted, value = self._scaled(surrogate, j)
        return None if len(value) < MIN_PREDICTIONS else _trust(_rmse(predicted, value), value)

    def report(self, surrogate: Surrogate) -> dict[str, Any]:
        """Return JSON builtins by name of each metric that is modelled and not looked up; unknown values are None.

        n             number of predictions that are judged
        loo_rmse      leave-one-out error of the last fit
        heldout_rmse  root mean square error of the predictions, in the scale of the surrogate (mostly the logarithm)
        heldout_rank  Spearman's correlation of the predictions with the results
        trust         0 if the predictions are no better than the mean of the results, 1 if they are exact
        """
        found: dict[str, Any] = {}
        for j, metric in enumerate(self._metrics):
            if (loo := surrogate.loo_rmse(j)) is None:
                continue
            predicted, value = self._scaled(surrogate, j)
            known = len(value) >= MIN_PREDICTIONS
            found[metric.name] = {
                "n": len(value),
                "loo_rmse": loo,
                "heldout_rmse": _rmse(predicted, value) if known else None,
                "heldout_rank": rank_correlation(predicted, value) if known else None,
                "trust": _trust(_rmse(predicted, value), value) if known else 0.0,
            }
        return found

    def _scaled(self, surrogate: Surrogate, j: int) -> tuple[FloatArray, FloatArray]:
        if not self._pairs:
            return np.zeros(0), np.zeros(0)
        predicted, value = (surrogate.scale(np.stack(rows))[:, j] for rows in zip(*self._pairs, strict=True))
        there = np.isfinite(value) & np.isfinite(predicted)
        return predicted[there], value[there]


def rank_correlation(a: FloatArray, b: FloatArray) -> float:
    """Return Spearman's correlation, with mean ranks for ties; 0 if one of the two is constant."""
    ranks = [_ranks(a), _ranks(b)]
    centred = [rank - rank.mean() for rank in ranks]
    power = float(np.sqrt((centred[0] @ centred[0]) * (centred[1] @ centred[1])))
    return float(centred[0] @ centred[1]) / power if power > 0 else 0.0


def _ranks(values: FloatArray) -> FloatArray:
    _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count - 1) / 2.0)[inverse])


def _rmse(predicted: FloatArray, value: FloatArray) -> float:
    return float(np.sqrt(np.mean((predicted - value) ** 2)))


def _trust(error: float, value: FloatArray) -> float:
    spread = float(value.std())
    return float(np.clip(1.0 - error / spread, 0.0, 1.0)) if spread > 0 else float(error == 0.0)
