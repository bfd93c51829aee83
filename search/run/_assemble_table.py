"""The sensitivity table, assembled from measured rows and a first guess."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import TypeAlias

from ..values import Row, SensitivityTable

Key: TypeAlias = tuple[int, int]
"""Group and level of a row."""

Guess: TypeAlias = Sequence[Sequence[float | None]]
"""Guessed divergence for each group and level; None where there is none."""


def assemble(
    wanted: Iterable[Key],
    rows: Mapping[Key, Row],
    n_levels: Sequence[int],
    guess: Guess | None,
    *,
    costs: Mapping[str, tuple[tuple[float, ...], ...]],
    fixed: Mapping[str, float],
    n_samples: int,
) -> SensitivityTable:
    """Put the rows together as a table.

    A row that was not measured is the guess, scaled by the factor by which the guess was off in its group. A failed
    row, or one without a guess, is infinite.

    wanted    (group, level) that the table shall have; all others are zero
    n_levels  number of levels of each group
    """
    value, stderr, n = ([[0.0] * count for count in n_levels] for _ in range(3))
    factors = _factors(rows, guess, len(n_levels))
    for g, level in wanted:
        row = rows.get((g, level))
        if row is None:
            guessed = None if guess is None else guess[g][level]
            value[g][level] = stderr[g][level] = math.inf if guessed is None else guessed * factors[g]
            continue
        value[g][level] = math.inf if row.value is None else row.value
        stderr[g][level] = math.nan if row.stderr is None else row.stderr
        n[g][level] = row.n
    return SensitivityTable(
        divergence=_frozen(value),
        costs=costs,
        fixed=fixed,
        n_samples=n_samples,
        stderr=_frozen(stderr),
        n=tuple(tuple(int(count) for count in row) for row in n),
    )


def _frozen(rows: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in rows)


def _factors(rows: Mapping[Key, Row], guess: Guess | None, n_groups: int) -> list[float]:
    """Median of measured over guessed for each group; of all groups where nothing of this one was measured."""
    ratios: dict[int, list[float]] = {g: [] for g in range(n_groups)}
    for (g, level), row in rows.items():
        guessed = None if guess is None else guess[g][level]
        if row.value is not None and guessed is not None and guessed > 0:
            ratios[g].append(row.value / guessed)
    every = [ratio for found in ratios.values() for ratio in found]
    overall = median(every) if every else 1.0
    return [median(ratios[g]) if ratios[g] else overall for g in range(n_groups)]
