"""Known candidates, and ways to find a new one, even in the last corner of a small space."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import numpy as np

from ..values import Candidate, SearchSpace

Levels: TypeAlias = tuple[int, ...]


class KnownCandidates:
    """The candidates that were proposed or told, in the order in which they became known."""

    def __init__(self, space: SearchSpace) -> None:
        self._n_levels = space.n_levels
        self._size = space.size
        self._seen: dict[Levels, None] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def __contains__(self, levels: object) -> bool:
        return levels in self._seen

    def __iter__(self) -> Iterator[Levels]:
        return iter(self._seen)

    @property
    def exhausted(self) -> bool:
        """True if every candidate of the space is known."""
        return len(self._seen) >= self._size

    def add(self, levels: Levels) -> None:
        """Make a candidate known; one that is known keeps its place."""
        self._seen.setdefault(levels)

    def update(self, many: Iterable[Levels]) -> None:
        """Make several candidates known, in this order."""
        for levels in many:
            self.add(levels)

    def asked(self, n: int, propose: Callable[[], Levels | None]) -> list[Candidate]:
        """Return up to n proposals, each made known before the next; fewer if `propose` has no more."""
        candidates: list[Candidate] = []
        while len(candidates) < n and (levels := propose()) is not None:
            self.add(levels)
            candidates.append(Candidate(levels=levels))
        return candidates

    def rng(self, seed: int) -> np.random.Generator:
        """Return the generator for the next proposal: a function of the seed and of the number of known candidates.

        So no generator has to be saved, `ask(2)` equals `ask(1)` twice, and a searcher that is told a whole ledger
        after a resume goes on as the first one would have.
        """
        return np.random.default_rng([seed & 0xFFFF_FFFF_FFFF_FFFF, len(self._seen)])

    def random_new(self, rng: np.random.Generator) -> Levels | None:
        """Return a new candidate, uniform over those that are left; None if there is none.

        After some unlucky draws it counts upwards from the last one. That always finds a candidate, though no longer
        uniformly, in at most one step for each known candidate.
        """
        if self.exhausted:
            return None
        draws = rng.integers(0, np.array(self._n_levels), size=(32, len(self._n_levels)))
        for row in draws.tolist():
            if (levels := tuple(row)) not in self._seen:
                return levels
        return self._count_up(tuple(draws[-1].tolist()))

    def near(self, levels: Levels, rng: np.random.Generator) -> Levels | None:
        """Return a new candidate that differs from this one in few groups; None if the space is exhausted."""
        if self.exhausted:
            return None
        for attempt in range(64):
            changed = list(levels)
            for g in rng.integers(0, len(changed), size=1 + attempt // 8).tolist():
                changed[g] = int(rng.integers(self._n_levels[g]))
            if (found := tuple(changed)) not in self._seen:
                return found
        return self._count_up(levels)

    def _count_up(self, levels: Levels) -> Levels:
        """Return the next new candidate, counting with one digit for each group. The space must not be exhausted."""
        digits = list(levels)
        while tuple(digits) in self._seen:
            for g in range(len(digits)):
                digits[g] = (digits[g] + 1) % self._n_levels[g]
                if digits[g]:
                    break
        return tuple(digits)


def levels_of(candidate: Candidate) -> Levels:
    """Return the levels as builtin ints: a numpy integer would break the JSON of a state or a ledger."""
    return tuple(int(level) for level in candidate.levels)
