"""Placeholder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._trial import Completed, LowFidelity


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A metric to be minimised or maximised. Inside, everything is minimised: the sign is turned once, in `signed`.

    good_enough  where it is minimised, the value below which none is better than another: `key` gives this one for all
                 of them, so that nothing is paid for what no one can tell apart
    """

    name: str
    maximise: bool = False
    indifference_threshold: float = -math.inf

    def key(self, value: float) -> float:
        """The value as it is judged."""
        return max(self.signed(value), self.indifference_threshold)

    def signed(self, value: float) -> float:
        """The value as it was measured, minimised."""
        return -value if self.maximise else value


def vectors(trials: Sequence[Completed | LowFidelity], objectives: Sequence[Objective]) -> NDArray[np.float64]:
    """Shape (n_trials, n_objectives); minimised."""
    return np.array([[o.key(t.metrics[o.name].value) for o in objectives] for t in trials], dtype=np.float64).reshape(
        len(trials), len(objectives)
    )
