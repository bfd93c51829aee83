"""The space without the levels that nobody would choose: dearer than another of their group, and worse."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ...errors import InputError
from ..values import Candidate, Group, Limits, SearchSpace, SensitivityTable, Trial

SURE = 2.0
"""So many standard errors of the difference must lie between two levels before one is called worse."""


def relevant_costs(
    objectives: Iterable[str], limits: Limits, costs: Mapping[str, Sequence[Sequence[float]]]
) -> list[str]:
    """The static costs that a choice is judged by: objectives, and what is limited."""
    return [name for name in dict.fromkeys([*objectives, *limits]) if name in costs]


def dominated_levels(
    space: SearchSpace, table: SensitivityTable, costs: Sequence[str], limits: Limits
) -> tuple[tuple[int, int], ...]:
    """(group, level) of every level that another of its group beats: no dearer in any of the costs, and less divergence
    by more than chance.

    The neutral level stays, and of every cost that the table has the cheapest level. Nothing is dropped where a cost
    must not be too low, without a cost, or where the table's standard errors are not known.
    """
    if not costs or not table.stderr or any(name in costs and low is not None for name, (low, _) in limits.items()):
        return ()
    return tuple((g, level) for g in range(len(space)) for level in _dominated(space.groups[g], g, table, costs))


def _dominated(group: Group, g: int, table: SensitivityTable, costs: Sequence[str]) -> list[int]:
    levels = range(len(group.levels))
    kept = {level for level in levels if group.levels[level].is_neutral}
    for rows in table.costs.values():
        kept.add(min(levels, key=lambda level: (rows[g][level], table.divergence[g][level])))
    return [
        level
        for level in levels
        if level not in kept
        and any(
            all(table.costs[name][g][other] <= table.costs[name][g][level] for name in costs)
            and _is_better(table, g, other, level)
            for other in levels
            if other != level
        )
    ]


def _is_better(table: SensitivityTable, g: int, one: int, other: int) -> bool:
    """Tell whether the divergence of `one` is surely less. Unknown standard errors decide nothing."""
    less, more = table.divergence[g][one], table.divergence[g][other]
    if not math.isfinite(less) or math.isinf(more):
        return math.isfinite(less)
    error = math.hypot(table.stderr[g][one], table.stderr[g][other])
    return more - less > SURE * error  # False for NaN


def unpromising_levels(
    space: SearchSpace,
    guess: Sequence[Sequence[float | None]],
    costs: Mapping[str, Sequence[Sequence[float]]],
    names: Sequence[str],
    *,
    factor: float,
) -> set[tuple[int, int]]:
    """(group, level) of every level that another of its group beats by a rough guess of the divergences alone: no
    dearer in any of the costs `names`, and less divergence by the `factor`.

    The neutral level is never one of them, nor of any cost the cheapest level, nor a level without a guess.
    """
    found: set[tuple[int, int]] = set()
    for g, group in enumerate(space.groups if names else ()):
        levels = range(len(group.levels))
        kept = {level for level in levels if group.levels[level].is_neutral}
        kept |= {min(levels, key=lambda level, rows=rows: rows[g][level]) for rows in costs.values()}  # type: ignore[misc]
        for level in set(levels) - kept:
            mine = guess[g][level]
            if mine is not None and any(
                other != level
                and (theirs := guess[g][other]) is not None
                and theirs * factor < mine
                and all(costs[name][g][other] <= costs[name][g][level] for name in names)
                for other in levels
            ):
                found.add((g, level))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ReducedSpace:
    """A space and its table without some levels, and the way between its candidates and the whole space's.

    kept  per group: the whole space's levels that are left, in order
    """

    space: SearchSpace
    table: SensitivityTable
    kept: tuple[tuple[int, ...], ...]

    def to_reduced(self, candidate: Candidate) -> Candidate | None:
        """Return a candidate of the whole space in the reduced one; None if it uses a level that was dropped."""
        levels = []
        for kept, level in zip(self.kept, candidate.levels, strict=True):
            if level not in kept:
                return None
            levels.append(kept.index(level))
        return Candidate(levels=tuple(levels))

    def to_full(self, candidate: Candidate) -> Candidate:
        """Return a candidate of the reduced space in the whole one."""
        self.space.check(candidate)
        return Candidate(levels=tuple(kept[i] for kept, i in zip(self.kept, candidate.levels, strict=True)))

    def visible(self, trials: Iterable[Trial]) -> list[Trial]:
        """Return the trials of candidates that the reduced space has, as its own trials."""
        pairs = ((trial, self.to_reduced(trial.candidate)) for trial in trials)
        return [replace(trial, candidate=candidate) for trial, candidate in pairs if candidate is not None]


def reduce_space(space: SearchSpace, table: SensitivityTable, dropped: Iterable[tuple[int, int]]) -> ReducedSpace:
    """The space and the table without the dropped (group, level). Raises `InputError` if a group would have none left,
    or has no such level."""
    gone = set(dropped)
    for g, level in gone:
        if not 0 <= g < len(space) or not 0 <= level < len(space.groups[g].levels):
            raise InputError(f"there is no level {level} of group {g} to be dropped")
    kept = tuple(
        tuple(level for level in range(len(group.levels)) if (g, level) not in gone)
        for g, group in enumerate(space.groups)
    )
    if empty := [group.name for group, levels in zip(space.groups, kept, strict=True) if not levels]:
        raise InputError(f"every level of {empty[0]} would be dropped; one must stay")
    groups = tuple(
        replace(group, levels=tuple(group.levels[level] for level in levels))
        for group, levels in zip(space.groups, kept, strict=True)
    )
    return ReducedSpace(space=SearchSpace(groups=groups), table=_narrowed_table(table, kept), kept=kept)


def _narrowed_table(table: SensitivityTable, kept: tuple[tuple[int, ...], ...]) -> SensitivityTable:
    def cut(rows: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(row[level] for level in levels) for row, levels in zip(rows, kept, strict=True))

    perturbations = table.perturbations
    return replace(
        table,
        divergence=cut(table.divergence),
        costs={name: cut(rows) for name, rows in table.costs.items()},
        proxies={name: cut(rows) for name, rows in table.proxies.items()},
        stderr=cut(table.stderr) if table.stderr else (),
        n=tuple(tuple(int(count) for count in row) for row in cut(table.n)) if table.n else (),
        perturbations=perturbations
        and replace(
            perturbations,
            rows=tuple(rows[list(levels)] for rows, levels in zip(perturbations.rows, kept, strict=True)),
        ),
    )
