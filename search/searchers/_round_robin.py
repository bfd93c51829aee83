"""Several devices, one search: a searcher for each, who take turns and are told of everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ..values import MODELLED, Candidate, Objective, Trial, metric_on_device
from ._base import Reporting, Searcher

if TYPE_CHECKING:
    from ..task import Task
    from ..values import Limits


def guides_of(guide: Sequence[Objective], devices: Sequence[str]) -> list[tuple[Objective, ...]]:
    """What the search is led by on each device: costs that depend on it bear its name, but for the first."""
    return [tuple(replace(o, name=_named(o.name, n, device)) for o in guide) for n, device in enumerate(devices)]


def limits_of(task: Task, limits: Limits, original: Mapping[str, float], devices: Sequence[str]) -> list[Limits]:
    """The limits on each device, the first's as they are; a share of the original's is one of the original's there.

    original  metric -> all of the original's, those on further devices by their names
    """
    found: list[Limits] = []
    for n, device in enumerate(devices):
        bounds: dict[str, tuple[float | None, float | None]] = {}
        for name, (low, high) in limits.items():
            limit, there = task.cost_limits.get(name), _named(name, n, device)
            if n and name in MODELLED and limit is not None and limit.max_ratio is not None:
                share = limit.max_ratio * original[there]
                high = share if limit.max is None else min(limit.max, share)
            bounds[there] = low, high
        found.append(bounds)
    return found


def _named(name: str, n: int, device: str) -> str:
    return metric_on_device(name, device) if n and name in MODELLED else name


class RoundRobinSearcher:
    """A searcher made of several, each with objectives of its own on the same space.

    turn  whose it is first: so many candidates have been asked for before
    """

    def __init__(self, searchers: Sequence[Searcher], *, turn: int = 0) -> None:
        if not searchers:
            raise InputError("there is nobody to take turns: `searchers` is empty")
        self.searchers, self.turn = tuple(searchers), turn

    def ask(self, n: int) -> list[Candidate]:
        """Who has nothing left is passed over."""
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
        """Of the metrics of all of them; where several know one, as the first says."""
        reports = [searcher.report() for searcher in self.searchers if isinstance(searcher, Reporting)]
        return {name: said for report in reversed(reports) for name, said in report.items()}
