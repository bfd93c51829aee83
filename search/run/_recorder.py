"""Recorders: what the phases of a search write to.

A record goes into the state of the run, and with a `LedgerRecorder` to the disk first. Progress goes to a listener.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..values import Completed, Failed, Infeasible, Objective, violation
from ._hypervolume import front_hypervolume
from ._ledger import Ledger
from ._progress import Listener, Progress, Stopwatch
from ._state import State

if TYPE_CHECKING:
    from ..task import BudgetSection


class Recorder(Protocol):
    """The part of a recorder that a phase uses.

    state  state of the run, in step with what was appended
    watch  wall clock of the run, and the seconds by purpose
    """

    @property
    def state(self) -> State: ...

    @property
    def watch(self) -> Stopwatch: ...

    def append(self, record: Mapping[str, Any]) -> None: ...

    def note(self, text: str) -> None: ...

    def say(self, phase: str, *, done: int = 0, total: int = 0, message: str = "") -> None: ...


class MemoryRecorder:
    """Keeps records in a `State` alone; for work that leaves no run behind, such as a plan.

    budget    budget of the task; the remaining time is estimated from it
    listener  called with a `Progress` now and then; None for nobody
    workers   number of processes that evaluate candidates; 0 for this one
    watch     wall clock of the run; default: one that begins now and counts the state's earlier sessions in
    """

    def __init__(
        self,
        state: State,
        budget: BudgetSection,
        listener: Listener | None = None,
        *,
        workers: int = 0,
        watch: Stopwatch | None = None,
    ) -> None:
        self.state = state
        self.watch = Stopwatch(before_s=state.spent_s) if watch is None else watch
        self._budget, self._listener, self._workers = budget, listener, workers
        self._table_from: tuple[float, int] | None = None

    def append(self, record: Mapping[str, Any]) -> None:
        """Take a record into the state, with the wall clock spent so far as `spent_s`."""
        self.state.add({**record, "spent_s": round(self.watch.spent_s, 3)})

    def note(self, text: str) -> None:
        """Tell the user a remark and record it. A remark that was recorded before is not repeated."""
        if text not in self.state.notes:
            self.append({"type": "note", "text": text})
            self.say("", message=text)

    def times(self) -> None:
        """Record the seconds by purpose since the last call."""
        if seconds := self.watch.drain():
            self.append({"type": "time", "seconds": {name: round(s, 3) for name, s in seconds.items()}})

    def say(self, phase: str, *, done: int = 0, total: int = 0, message: str = "") -> None:
        """Tell the listener how far the phase is. Nothing is recorded."""
        if self._listener is None:
            return
        facts, trials = self.state.facts, self.state.trials
        is_known = facts is not None and bool(trials)
        self._listener(
            Progress(
                phase=phase,
                done=done,
                total=total,
                failed=sum(isinstance(t, Failed) for t in trials),
                spent_s=self.watch.spent_s,
                left_s=self._left(phase, done, total),
                hypervolume=front_hypervolume(trials, facts.objectives, facts.limits) if facts and is_known else None,
                best=best_metrics(self.state) if is_known else None,
                message=message,
            )
        )

    def _left(self, phase: str, done: int, total: int) -> float | None:
        """Estimate the remaining seconds: from the pace of the trials and rows, or from the budget of wall clock.

        The smaller estimate counts. None where there is neither.
        """
        lefts = []
        if self._budget.time is not None:
            lefts.append(max(0.0, self._budget.time - self.watch.spent_s))
        timed = [t.seconds for t in self.state.trials if not isinstance(t, Infeasible) and t.seconds]
        if phase in ("baselines", "table", "search") and timed:
            pace = sum(timed) / len(timed) / max(1, self._workers)
            n_left = max(0, self._budget.trials - self.state.n_mixed)
            lefts.append(pace * n_left + self._rows_left(phase, done, total))
        return min(lefts, default=None)

    def _rows_left(self, phase: str, done: int, total: int) -> float:
        """Estimate the seconds for the rest of the table, which may exceed those of all trials; 0 at its beginning."""
        if phase != "table":
            return 0.0
        spent, before = self._table_from = self._table_from or (self.watch.spent_s, done)
        return (self.watch.spent_s - spent) / (done - before) * (total - done) if done > before else 0.0


class LedgerRecorder(MemoryRecorder):
    """Writes each record to the run's ledger before the state takes it in. The only writer of that ledger."""

    def __init__(
        self,
        state: State,
        budget: BudgetSection,
        listener: Listener | None = None,
        *,
        ledger: Ledger,
        workers: int = 0,
        watch: Stopwatch | None = None,
    ) -> None:
        super().__init__(state, budget, listener, workers=workers, watch=watch)
        self._ledger = ledger

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record; returns when it is on the disk and in the state."""
        record = {**record, "spent_s": round(self.watch.spent_s, 3)}
        with self.watch.charge("ledger"):
            self._ledger.append(record)
        self.state.add(record)


def best_metrics(state: State) -> dict[str, float] | None:
    """Objectives of the best mixed point within the limits so far; None before there is one.

    This is the cheapest point whose quality lies in the original's interval, else the one of the best quality.
    """
    if state.facts is None:
        return None
    objectives: Sequence[Objective] = state.facts.objectives
    done = [t for t in state.trials if isinstance(t, Completed)]
    allowed = [t for t in done if t.kind == "mixed" and violation(t.metrics, state.facts.limits) == 0.0]
    original = next((t for t in done if t.kind == "original"), None)
    if not allowed or original is None:
        return None
    quality, cost = objectives[0], objectives[-1]
    reference = original.metrics[quality.name]
    floor = max(quality.key(v) for v in (reference.low, reference.high, reference.value) if v is not None)
    close = [t for t in allowed if quality.key(t.metrics[quality.name].value) <= floor]
    ranked = [cost, quality] if close else [quality, cost]
    pick = min(close or allowed, key=lambda t: tuple(o.key(t.metrics[o.name].value) for o in ranked))
    return {o.name: pick.metrics[o.name].value for o in objectives}
