"""Which candidates are taken, and how to find one that is not, even in the last corner of a small space."""

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
        return len(self._seen) >= self._size

    def add(self, levels: Levels) -> None:
        self._seen.setdefault(levels)

    def update(self, many: Iterable[Levels]) -> None:
        for levels in many:
            self.add(levels)

    def asked(self, n: int, propose: Callable[[], Levels | None]) -> list[Candidate]:
        """Up to n proposals, each known before the next is made; fewer where `propose` has no more."""
        candidates: list[Candidate] = []
        while len(candidates) < n and (levels := propose()) is not None:
            self.add(levels)
            candidates.append(Candidate(levels=levels))
        return candidates

    def rng(self, seed: int) -> np.random.Generator:
        """The generator for the next proposal: a function of the seed and of how much is known.

        So nothing of it needs saving, `ask(2)` is `ask(1)` twice, and a searcher that is told a whole ledger after a
        resume goes on as the one that lived through it.
        """
        return np.random.default_rng([seed & 0xFFFF_FFFF_FFFF_FFFF, len(self._seen)])

    def random_new(self, rng: np.random.Generator) -> Levels | None:
        """Uniform over what is left; None when nothing is.

        After some unlucky draws it counts upwards from the last one: exact, though no longer uniform, and never more
        than one step for each known candidate.
        """
        if self.exhausted:
            return None
        draws = rng.integers(0, np.array(self._n_levels), size=(32, len(self._n_levels)))
        for row in draws.tolist():
            if (levels := tuple(row)) not in self._seen:
                return levels
        return self._count_up(tuple(draws[-1].tolist()))

    def near(self, levels: Levels, rng: np.random.Generator) -> Levels | None:
        """A new candidate that differs from this one in few groups; None when the space is exhausted."""
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
        """The next unknown candidate, read as a number with one digit for each group. The space is not exhausted."""
        digits = list(levels)
        while tuple(digits) in self._seen:
            for g in range(len(digits)):
                digits[g] = (digits[g] + 1) % self._n_levels[g]
                if digits[g]:
                    break
        return tuple(digits)


def levels_of(candidate: Candidate) -> Levels:
    """Builtin ints, whatever came in (a numpy integer would break the JSON of a state or a ledger)."""
    return tuple(int(level) for level in candidate.levels)
