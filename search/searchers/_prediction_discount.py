"""Discount of predicted improvements where earlier predictions on the front turned out too good."""

from __future__ import annotations

import numpy as np

from ..._arrays import FloatArray

DISCOUNT_WINDOW = 256
"""Number of the latest predictions that count."""
REACH = 0.08
"""Radius within which a prediction counts, as a share of the front's span in each objective."""
PRIOR_WEIGHT = 2.0
"""Weight of the prior belief that predictions come true, in median predictions."""
MAX_FACTOR = 2.0
"""Largest factor, where results were better than predicted."""


class PredictionDiscount:
    """Predicted improvements beside the actual ones.

    The best of many predictions is mostly one that is too good. The error is larger where the surrogate knows less: for
    example where layers are at their narrowest, and divergences do not add up.
    """

    def __init__(self) -> None:
        self._places: FloatArray | None = None
        self._predicted = np.zeros(0)
        self._actual = np.zeros(0)

    def __len__(self) -> int:
        return len(self._predicted)

    def add(self, place: FloatArray, predicted: float, actual: float) -> None:
        """Add a trial. A predicted improvement of 0 or less does not count.

        place      predicted objectives in the scale of the surrogate, shape (objectives,)
        predicted  predicted improvement
        actual     improvement that came
        """
        if predicted <= 0.0 or not np.isfinite(place).all():
            return
        places = np.zeros((0, len(place))) if self._places is None else self._places
        self._places = np.concatenate([places, place[None, :]])[-DISCOUNT_WINDOW:]
        self._predicted = np.append(self._predicted, predicted)[-DISCOUNT_WINDOW:]
        self._actual = np.append(self._actual, max(actual, 0.0))[-DISCOUNT_WINDOW:]

    def factor(self, places: FloatArray, span: FloatArray) -> FloatArray:
        """Return the factor for predicted improvements at each place, shape (n,): 1 where nothing is known.

        places  (n, objectives)
        span    span of the front, shape (objectives,)
        """
        if self._places is None:
            return np.ones(len(places))
        apart = np.zeros((len(places), len(self._places)))
        for j in range(self._places.shape[1]):
            apart += np.square((places[:, j, None] - self._places[None, :, j]) / (REACH * span[j]))
        near = np.exp(-0.5 * apart)
        prior = PRIOR_WEIGHT * float(np.median(self._predicted))
        return np.asarray(np.minimum((prior + near @ self._actual) / (prior + near @ self._predicted), MAX_FACTOR))
