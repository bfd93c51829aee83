"""Limits on what only an evaluation can tell: which metrics must be foreseen for them, and by how much they break."""

from __future__ import annotations

import numpy as np

from ..._arrays import FloatArray
from ..values import Objective
from ._base import SearchContext


def foreseen_metrics(context: SearchContext) -> tuple[Objective, ...]:
    """The objectives, and after them the metrics with a limit that are neither objectives nor static costs.

    What must not be too low is taken for a quality (accuracy), anything else for a cost.
    """
    names = {objective.name for objective in context.objectives}
    static = context.table.costs if context.table is not None else {}
    return context.objectives + tuple(
        Objective(name=name, maximise=high is None)
        for name, (_, high) in context.limits.items()
        if name not in names and name not in static
    )


def foreseen_excess(context: SearchContext, metrics: tuple[Objective, ...], predicted: FloatArray) -> FloatArray:
    """By how much each candidate is expected to break the limits, relative to the bounds: shape (n,).

    predicted  shape (n, metrics), minimised, in the metrics' own units
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
