"""Random search: the baseline that every other searcher has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..values import Candidate, Trial
from ._base import SearchContext
from ._known import KnownCandidates, levels_of
from ._state import read_levels, read_state, write_state


class RandomSearcher:
    """A searcher that draws uniformly from the candidates that are not known yet. Results only prevent repetition."""

    def __init__(self, context: SearchContext) -> None:
        self._context = context
        self._known = KnownCandidates(context.space)

    def ask(self, n: int) -> list[Candidate]:
        return self._known.asked(n, lambda: self._known.random_new(self._known.rng(self._context.seed)))

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            self._context.space.check(trial.candidate)
            self._known.add(levels_of(trial.candidate))

    def state_dict(self) -> dict[str, Any]:
        return write_state("random", self._context.space, known=[list(levels) for levels in self._known])

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        fields = read_state(state, "random", self._context.space, ("known",))
        known = [read_levels(levels, self._context.space) for levels in fields["known"]]
        self._known = KnownCandidates(self._context.space)
        self._known.update(known)
