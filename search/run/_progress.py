"""What a running search says of itself, and where its time goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One look at a running search.

    done, total  of this phase: variants, rows, trials or artifacts
    failed       trials that failed, in all
    left_s       estimate for the whole, None where there is nothing to go by
    best         metrics of the best point within the limits so far
    message      something to be said once, or ""
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
    """Wall clock since the run began (earlier sittings counted in), and seconds by purpose.

    What is charged within another charge is taken off that one, so the seconds add up to no more than the wall clock.
    """

    before_s: float = 0.0
    began: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)
    _within: list[float] = field(default_factory=list)

    @property
    def spent_s(self) -> float:
        return self.before_s + time.monotonic() - self.began

    @contextlib.contextmanager
    def charge(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        self._within.append(0.0)
        try:
            yield
        finally:
            took = time.monotonic() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + took - self._within.pop()
            if self._within:
                self._within[-1] += took

    def drain(self) -> dict[str, float]:
        """What was charged since the last time."""
        seconds, self.seconds = self.seconds, {}
        return seconds
