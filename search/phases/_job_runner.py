"""Runs the jobs of a phase on the workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..evaluation import Job, Outcome
from ..workers import Pool
from ._clock import Clock

J = TypeVar("J", bound=Job[Any, Any])
R = TypeVar("R")

MAX_ATTEMPTS = 2
"""Attempts at a job whose worker died. Ray's own retries are off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRunner:
    """Runs jobs on a pool of workers as long as the clock allows."""

    pool: Pool
    clock: Clock

    def run(self, jobs: Sequence[Job[J, R]], *, within_budget: bool = False) -> Iterator[Outcome[J, R]]:
        """Yield every job's outcome, in any order. A job whose worker died gets another attempt.

        A stop that was asked for ends it after the running jobs, with `Interrupted`. With `within_budget` the end of
        the time ends it too, without an error: the remaining jobs have no outcome.
        """
        waiting = list(reversed(jobs))
        while True:
            is_held = self.clock.is_stopping or (within_budget and self.clock.out_of_time)
            while self.pool.idle and waiting and not is_held:
                self.pool.submit(waiting.pop())
            if not self.pool.busy:
                break
            for outcome in self.pool.wait(timeout_s=1.0):
                if (again := next_attempt(outcome)) is not None:
                    waiting.append(again)
                else:
                    yield outcome
        if waiting:
            self.clock.stop_if_asked()


def next_attempt(outcome: Outcome[J, R]) -> J | None:
    """Return the job for another attempt if its worker died and it has one left, else None.

    The worker's death may have been another job's fault.
    """
    if not outcome.fatal or outcome.job.attempt >= MAX_ATTEMPTS:
        return None
    return outcome.job.next_attempt()
