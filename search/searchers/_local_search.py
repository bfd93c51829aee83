"""Local search on the surrogate: a front bred on predictions alone, without any evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..._arrays import FloatArray
from ..values import crowding, non_dominated, unique_rows
from ._offspring import Steps, offspring

LevelArray: TypeAlias = NDArray[np.int16]

ROUNDS = 8
"""Number of rounds of breeding."""
KEPT = 96
"""Most candidates of the front."""


def local_search(
    start: LevelArray,
    predict: Callable[[LevelArray], FloatArray],
    steps: Sequence[Steps],
    allowed: Callable[[LevelArray], LevelArray],
    rng: np.random.Generator,
) -> LevelArray:
    """Return at most `KEPT` candidates, shape (n, groups), that are non-dominated in predicted objectives.

    Each round breeds between neighbours, with one of the `steps`. The sweep is exact where divergences add up. The
    local search finds the candidates that are good because divergences do not add up.

    start    candidates to begin with, shape (n, groups)
    predict  (n, groups) -> objectives, shape (n, objectives), minimised
    allowed  removes candidates that break a limit
    """
    rows = allowed(start)
    rows, values = _kept(rows, predict(rows))
    for _ in range(ROUNDS):
        reach = rng.integers(1, 4, size=len(rows)) * rng.choice([-1, 1], size=len(rows))
        partners = rows[np.clip(np.arange(len(rows)) + reach, 0, len(rows) - 1)]
        children = allowed(offspring(rows, partners, steps[int(rng.integers(len(steps)))], rng))
        rows, values = _kept(np.concatenate([rows, children]), np.concatenate([values, predict(children)]))
    return rows


def _kept(rows: LevelArray, values: FloatArray) -> tuple[LevelArray, FloatArray]:
    """Return the front, thinned by crowding, in the order of the first objective; of equal values the first."""
    first, _ = unique_rows(values)  # sorted by the first objective
    first = first[non_dominated(values[first])]
    if len(first) > KEPT:
        thinned = np.argsort(-crowding(values[first]), kind="stable")[:KEPT]
        first = first[np.sort(thinned)]
    return rows[first], values[first]
