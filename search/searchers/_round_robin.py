"""Search for several devices: a searcher for each; they take turns and are told of every trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import InputError
from ..values import Candidate, Trial
from ._base import Reporting, Searcher


class RoundRobinSearcher:
    """A searcher made of several, each with its own objectives on the same space.

    turn  number of candidates that have been asked for before; it decides who is first
    """

    def __init__(self, searchers: Sequence[Searcher], *, turn: int = 0) -> None:
        if not searchers:
            raise InputError("a round robin needs at least one searcher, got none")
        self.searchers, self.turn = tuple(searchers), turn

    def ask(self, n: int) -> list[Candidate]:
        """Ask the searchers in turn; one that has no candidates left is passed over."""
        asked: list[Candidate] = []
        while len(asked) < n:
            for _ in self.searchers:
                searcher = self.searchers[self.turn % len(self.searchers)]
                self.turn += 1
                if found := searcher.ask(1):
                    break
            else:
                return asked
            asked += [candidate for candidate in found if candidate not in asked]
        return asked

    def tell(self, trials: Sequence[Trial]) -> None:
        for searcher in self.searchers:
            searcher.tell(trials)

    def state_dict(self) -> dict[str, Any]:
        return {"turn": self.turn, "searchers": [searcher.state_dict() for searcher in self.searchers]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.turn = state["turn"]
        for searcher, one in zip(self.searchers, state["searchers"], strict=True):
            searcher.load_state_dict(one)

    def report(self) -> dict[str, Any]:
        """Return the reports on the metrics of all searchers; of several on one metric, the first."""
        reports = [searcher.report() for searcher in self.searchers if isinstance(searcher, Reporting)]
        return {name: entry for report in reversed(reports) for name, entry in report.items()}
