"""Writes what happens into the ledger, and says it to whoever listens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..values import Completed, Failed, Infeasible, Limits, Objective, Trial, trial_to_record, violation
from ._hypervolume import front_hypervolume
from ._ledger import Ledger
from ._progress import Listener, Progress, Stopwatch
from ._run import StoredRun


class Recorder:
    """The ledger's only writer. `run.state` is kept in step with it.

    objectives, limits, workers  are set by the driver when they are known; before, progress says less
    """

    def __init__(self, run: StoredRun, ledger: Ledger, listener: Listener | None) -> None:
        self.run, self._ledger, self._listener = run, ledger, listener
        self.state = run.state
        self.watch = Stopwatch(before_s=self.state.spent_s)
        self.objectives: Sequence[Objective] = ()
        self.limits: Limits = {}
        self.workers = 0
        self._table_from: tuple[float, int] | None = None

    def append(self, record: Mapping[str, Any]) -> None:
        """Returns when the record is on the disk."""
        record = {**record, "spent_s": round(self.watch.spent_s, 3)}
        with self.watch.charge("ledger"):
            self._ledger.append(record)
        self.state.add(record)

    def trial(self, trial: Trial, *, losses: str | None = None) -> None:
        """losses  of a trial that others have to beat, packed; see `_race`"""
        self.append(trial_to_record(trial) | ({} if losses is None else {"losses": losses}))

    def note(self, text: str) -> None:
        """Something the user should know, once; kept with the run."""
        if text not in self.state.notes:
            self.append({"type": "note", "text": text})
            self.say("", message=text)

    def times(self) -> None:
        """Where the time went since the last call."""
        if seconds := self.watch.drain():
            self.append({"type": "time", "seconds": {name: round(s, 3) for name, s in seconds.items()}})

    def say(self, phase: str, *, done: int = 0, total: int = 0, message: str = "") -> None:
        if self._listener is None:
            return
        known = bool(self.state.trials and self.objectives)
        self._listener(
            Progress(
                phase=phase,
                done=done,
                total=total,
                failed=sum(isinstance(t, Failed) for t in self.state.trials),
                spent_s=self.watch.spent_s,
                left_s=self._left(phase, done, total),
                hypervolume=front_hypervolume(self.state.trials, self.objectives, self.limits) if known else None,
                best=self._best() if known else None,
                message=message,
            )
        )

    def _best(self) -> dict[str, float] | None:
        """The cheapest point within the limits whose quality lies in the original's interval, else the best one."""
        done = [t for t in self.state.trials if isinstance(t, Completed)]
        allowed = [t for t in done if t.kind == "mixed" and violation(t.metrics, self.limits) == 0.0]
        original = next((t for t in done if t.kind == "original"), None)
        if not allowed or original is None:
            return None
        quality, cost = self.objectives[0], self.objectives[-1]
        reference = original.metrics[quality.name]
        floor = max(quality.key(v) for v in (reference.low, reference.high, reference.value) if v is not None)
        close = [t for t in allowed if quality.key(t.metrics[quality.name].value) <= floor]
        ranked = [cost, quality] if close else [quality, cost]
        pick = min(close or allowed, key=lambda t: tuple(o.key(t.metrics[o.name].value) for o in ranked))
        return {o.name: pick.metrics[o.name].value for o in self.objectives}

    def _left(self, phase: str, done: int, total: int) -> float | None:
        """From the pace of the trials so far, and in the table that of its rows, or the wall clock's budget, whichever
        ends first."""
        budget, lefts = self.run.task.budget, []
        if budget.time is not None:
            lefts.append(max(0.0, budget.time - self.watch.spent_s))
        timed = [t.seconds for t in self.state.trials if not isinstance(t, Infeasible) and t.seconds]
        if phase in ("baselines", "table", "search") and timed:
            pace = sum(timed) / len(timed) / max(1, self.workers)
            lefts.append(pace * max(0, budget.trials - self.state.n_mixed) + self._rows_left(phase, done, total))
        return min(lefts, default=None)

    def _rows_left(self, phase: str, done: int, total: int) -> float:
        """Seconds that the rest of the table takes, which may be longer than all trials; 0 before it shows a pace."""
        if phase != "table":
            return 0.0
        spent, before = self._table_from = self._table_from or (self.watch.spent_s, done)
        return (self.watch.spent_s - spent) / (done - before) * (total - done) if done > before else 0.0
