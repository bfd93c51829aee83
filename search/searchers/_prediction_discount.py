"""Where on the front the surrogate's promises were kept, so that it is not believed again where they were not."""

from __future__ import annotations

import numpy as np

from ..._arrays import FloatArray

WINDOW = 256
"""So many of the latest promises count."""
REACH = 0.08
"""How far a promise speaks for its neighbourhood: a share of the front's span in each objective."""
PRIOR = 2.0
"""What is believed at first weighs as much as so many promises of the middling kind."""
MOST = 2.0


class PredictionDiscount:
    """Promised gains next to those that came: the best of many predictions is mostly one that is too good, and the more
    so the worse the surrogate knows the neighbourhood (where layers are at their narrowest, say, and nothing adds up).
    """

    def __init__(self) -> None:
        self._places: FloatArray | None = None
        self._promised = np.zeros(0)
        self._kept = np.zeros(0)

    def add(self, place: FloatArray, promised: float, kept: float) -> None:
        """One trial that was foreseen at `place` (objectives,), in the scale of progress; no promise counts nothing."""
        if promised <= 0.0 or not np.isfinite(place).all():
            return
        places = np.zeros((0, len(place))) if self._places is None else self._places
        self._places = np.concatenate([places, place[None, :]])[-WINDOW:]
        self._promised = np.append(self._promised, promised)[-WINDOW:]
        self._kept = np.append(self._kept, max(kept, 0.0))[-WINDOW:]

    def factor(self, places: FloatArray, span: FloatArray) -> FloatArray:
        """What a promise is worth at each of the places (n, objectives): 1 where nothing is known, shape (n,)."""
        if self._places is None:
            return np.ones(len(places))
        apart = np.zeros((len(places), len(self._places)))
        for j in range(self._places.shape[1]):
            apart += np.square((places[:, j, None] - self._places[None, :, j]) / (REACH * span[j]))
        near = np.exp(-0.5 * apart)
        prior = PRIOR * float(np.median(self._promised))
        return np.asarray(np.minimum((prior + near @ self._kept) / (prior + near @ self._promised), MOST))
