"""Limits on metrics that need an evaluation: the metrics to predict for them, and the predicted excess."""

from __future__ import annotations

import numpy as np

from ..._arrays import FloatArray
from ..values import Objective
from ._base import SearchContext


def predicted_metrics(context: SearchContext) -> tuple[Objective, ...]:
    """Return the objectives, and after them the limited metrics that are neither objectives nor static costs.

    A metric with only a lower bound counts as a quality (accuracy) and is maximised, any other is minimised.
    """
    names = {objective.name for objective in context.objectives}
    static = context.table.costs if context.table is not None else {}
    return context.objectives + tuple(
        Objective(name=name, maximise=high is None)
        for name, (_, high) in context.limits.items()
        if name not in names and name not in static
    )


def predicted_excess(context: SearchContext, metrics: tuple[Objective, ...], predicted: FloatArray) -> FloatArray:
    """Return the expected excess of each candidate over the limits, relative to the bounds: shape (n,).

    predicted  shape (n, metrics), minimised, in the units of the metrics
    """
    excess = np.zeros(len(predicted))
    for j, metric in enumerate(metrics):
        low, high = context.limits.get(metric.name, (None, None))
        value = metric.signed(1.0) * predicted[:, j]
        if low is not None:
            excess += np.maximum(low - value, 0.0) / (abs(low) or 1.0)
        if high is not None:
            excess += np.maximum(value - high, 0.0) / (abs(high) or 1.0)
    return excess
