"""Progress of a running search, and the seconds that it spends by purpose."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One look at a running search.

    done, total  items of this phase: variants, rows, trials or artifacts
    failed       number of failed trials, in all phases
    spent_s      wall clock since the run began
    left_s       estimate of the remaining seconds of the search; None where there is nothing to go by
    hypervolume  hypervolume of the front so far; None before the baselines are done
    best         objectives of the best point within the limits so far
    message      remark for the user, or ""
    """

    phase: str
    done: int = 0
    total: int = 0
    failed: int = 0
    spent_s: float = 0.0
    left_s: float | None = None
    hypervolume: float | None = None
    best: Mapping[str, float] | None = None
    message: str = ""


Listener = Callable[[Progress], None]


@dataclass(slots=True)
class Stopwatch:
    """Wall clock since the run began, and seconds by purpose.

    A charge within another charge is taken off that one, so the seconds add up to no more than the wall clock.

    before_s  seconds of the run's earlier sessions
    now       clock, in seconds from any beginning
    """

    before_s: float = 0.0
    now: Callable[[], float] = time.monotonic
    seconds: dict[str, float] = field(default_factory=dict)
    _began: float = field(init=False)
    _within: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._began = self.now()

    @property
    def spent_s(self) -> float:
        """Wall clock since the run began, earlier sessions included."""
        return self.before_s + self.now() - self._began

    @contextlib.contextmanager
    def charge(self, name: str) -> Iterator[None]:
        """Charge the time of the block to a purpose, also when the block raises."""
        start = self.now()
        self._within.append(0.0)
        try:
            yield
        finally:
            took = self.now() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + took - self._within.pop()
            if self._within:
                self._within[-1] += took

    def drain(self) -> dict[str, float]:
        """Return the seconds by purpose since the last call, and begin anew."""
        seconds, self.seconds = self.seconds, {}
        return seconds
