"""The clock of a search: what its budget still allows."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from ..._command import command
from ...errors import Interrupted
from ..values import Completed

if TYPE_CHECKING:
    from ..run import State, Stopwatch
    from ..task import BudgetSection


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Compares the time that is spent with the budget, and knows whether somebody asked for a stop.

    budget    limits on wall clock (seconds) and core hours; either may be None
    state     state of the run; its trials tell what an evaluation takes
    watch     wall clock of the run
    stopping  set by a signal
    workers   number of processes that evaluate candidates; 0 counts as one
    run       folder of the run, which a message names; None where none is kept
    """

    budget: BudgetSection
    state: State
    watch: Stopwatch
    stopping: threading.Event
    workers: int = 0
    run: Path | None = None

    @property
    def is_stopping(self) -> bool:
        """True once a stop was asked for."""
        return self.stopping.is_set()

    def stop_if_asked(self) -> None:
        """Raise `Interrupted` if a stop was asked for. Everything that is finished is in the ledger by then."""
        if self.is_stopping:
            raise Interrupted(
                "stopped" if self.run is None else f"stopped; `{command('resume', self.run)}` goes on from here"
            )

    @property
    def out_of_time(self) -> bool:
        """True once a stop was asked for, or the wall clock or the core hours of the budget are spent."""
        return self.is_stopping or self._exceeds(0.0)

    def ends_within(self, n: int) -> bool:
        """Return True if `n` evaluations on the whole search split would take the rest of the time.

        The median of the completed trials counts. False for n = 0, before there is a trial, and without a budget of
        time.
        """
        timed = [t.seconds for t in self.state.trials if isinstance(t, Completed)]
        return bool(n and timed) and self._exceeds(n * median(timed))

    def _exceeds(self, more_s: float) -> bool:
        """Return True if so many more seconds of work, spread over the workers, reach the end of the budget."""
        budget = self.budget
        spent_s = self.watch.spent_s + more_s / max(1, self.workers)
        if budget.time is not None and spent_s >= budget.time:
            return True
        return budget.core_hours is not None and self.state.core_seconds + more_s >= 3600 * budget.core_hours
