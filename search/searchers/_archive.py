"""Archive of results: every completed trial as arrays, their front, and the few that are worth breeding from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..._arrays import FloatArray
from ..values import Completed
from ._known import Levels
from ._survival import survivors

LevelArray: TypeAlias = NDArray[np.int16]
IndexArray: TypeAlias = NDArray[np.int64]

ELITE = 64
"""Most rows to breed from."""
MAX_FITTED = 256
"""Most rows to fit a surrogate to: the elite, and the latest."""


class Archive:
    """Results as rows, which are added one by one and stay.

    Arrays grow by doubling, so adding is cheap even with ten thousand rows. A row that breaks a limit is never on the
    front. It is bred from only while too few rows keep the limits.
    """

    def __init__(self, n_groups: int, n_objectives: int) -> None:
        self._levels: LevelArray = np.zeros((64, n_groups), dtype=np.int16)
        self._values: FloatArray = np.zeros((64, n_objectives))
        self._violation: FloatArray = np.zeros(64)
        self._n = 0
        self._row_of: dict[Levels, int] = {}
        self._front: list[int] = []
        self._elite: list[int] = []
        self._ranked_elite: IndexArray | None = None

    def __len__(self) -> int:
        return self._n

    def __contains__(self, levels: object) -> bool:
        return levels in self._row_of

    @property
    def levels(self) -> LevelArray:
        """Levels of the rows, shape (n, groups)."""
        return self._levels[: self._n]

    @property
    def values(self) -> FloatArray:
        """Objectives of the rows, shape (n, objectives), minimised."""
        return self._values[: self._n]

    @property
    def violation(self) -> FloatArray:
        """Violation of the limits by each row, shape (n,): 0 where all are kept, else the sum of relative excesses."""
        return self._violation[: self._n]

    @property
    def front(self) -> IndexArray:
        """Indices of the front among the rows that keep the limits; of rows with equal objectives, the first."""
        return np.array(self._front, dtype=np.int64)

    def add(self, levels: Levels, values: FloatArray, violation: float) -> None:
        """Add a result, shape (groups,) and (objectives,). A candidate that is here already keeps its first result."""
        if levels in self._row_of:
            return
        if self._n == len(self._values):
            self._levels = np.concatenate([self._levels, np.zeros_like(self._levels)])
            self._values = np.concatenate([self._values, np.zeros_like(self._values)])
            self._violation = np.concatenate([self._violation, np.zeros_like(self._violation)])
        row = self._n
        self._levels[row], self._values[row], self._violation[row] = levels, values, violation
        self._row_of[levels] = row
        self._n += 1
        if violation == 0.0:
            self._join_front(row)
        self._ranked_elite = None
        self._elite.append(row)
        if len(self._elite) > 2 * ELITE:
            self._elite = self._best().tolist()

    def elite(self) -> IndexArray:
        """Return at most `ELITE` rows to breed from, best first: by rank of front, then by crowding."""
        if self._ranked_elite is None:
            self._ranked_elite = self._best()
        return self._ranked_elite

    def training_rows(self) -> IndexArray:
        """Return at most `MAX_FITTED` rows for a surrogate to learn from: all, or the elite and the latest."""
        if self._n <= MAX_FITTED:
            return np.arange(self._n)
        return np.unique(np.concatenate([self.elite(), np.arange(self._n - (MAX_FITTED - ELITE), self._n)]))

    def _join_front(self, row: int) -> None:
        if self._front:
            values, new = self._values[self._front], self._values[row]
            if (values <= new).all(axis=1).any():
                return
            beaten = (new <= values).all(axis=1)
            if beaten.any():
                self._front = [old for old, out in zip(self._front, beaten.tolist(), strict=True) if not out]
        self._front.append(row)

    def _best(self) -> IndexArray:
        rows = np.array(self._elite, dtype=np.int64)
        return rows[survivors(self._values[rows], self._violation[rows], ELITE)]


def violation_of(trial: Completed, limits: Mapping[str, tuple[float | None, float | None]]) -> float:
    """Return the sum of the excesses over the limits, relative to the bounds; absent metrics add none."""
    total = 0.0
    for name, (low, high) in limits.items():
        if name not in trial.metrics:
            continue
        value = trial.metrics[name].value
        if low is not None and value < low:
            total += (low - value) / (abs(low) or 1.0)
        if high is not None and value > high:
            total += (value - high) / (abs(high) or 1.0)
    return float(total)
