"""Objectives of a search, and trials as vectors of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._trial import Completed, LowFidelity


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A metric to minimise or maximise. Inside the search everything is minimised: `signed` turns the sign once.

    indifference_threshold  for a minimised metric: values below it count as equal. `key` returns the threshold for all
                            of them, so the search spends nothing on differences that no one can see
    """

    name: str
    maximise: bool = False
    indifference_threshold: float = -math.inf

    def key(self, value: float) -> float:
        """Return the value as it is compared: minimised, and no less than the indifference threshold."""
        return max(self.signed(value), self.indifference_threshold)

    def signed(self, value: float) -> float:
        """Return the measured value, negated if the metric is maximised."""
        return -value if self.maximise else value


def vectors(trials: Sequence[Completed | LowFidelity], objectives: Sequence[Objective]) -> NDArray[np.float64]:
    """Return the objectives of the trials, minimised. Shape (n_trials, n_objectives)."""
    return np.array([[o.key(t.metrics[o.name].value) for o in objectives] for t in trials], dtype=np.float64).reshape(
        len(trials), len(objectives)
    )
