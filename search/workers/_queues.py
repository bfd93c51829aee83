"""Queues of jobs, one for each worker.

A worker has one job that runs. While jobs are short, one more is queued behind it, so that no worker waits for the
driver.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..evaluation import AnyJob

SHORT_S = 2.0
"""Jobs that take longer are not queued ahead. The few milliseconds until the driver sends the next one do not count
then, and a searcher that proposes later knows more."""
_SMOOTHING = 0.3
"""Weight of the last job in the running mean of the jobs' seconds."""


@dataclass(slots=True, eq=False)
class WorkerQueue:
    """A worker and the jobs that were sent to it, in the order in which it runs them.

    jobs   (handle of the result, the job) each; the first one runs
    began  when the first one began, on the clock; a job's time limit does not count while it is queued
    """

    worker: Any
    jobs: deque[tuple[Any, AnyJob]] = field(default_factory=deque)
    began: float = 0.0


class WorkerQueues:
    """Decides which worker gets which job, for workers that run what they are sent one after another.

    send   (worker, job) -> handle of the result
    clock  seconds
    """

    def __init__(self, send: Callable[[Any, AnyJob], Any], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._send, self._clock = send, clock
        self._queues: list[WorkerQueue] = []
        self._unplaced: deque[AnyJob] = deque()
        self._typical_s: float | None = None

    @property
    def depth(self) -> int:
        """Number of jobs that a worker may have: one, until it is known that jobs are short, then two."""
        return 2 if self._typical_s is not None and self._typical_s < SHORT_S else 1

    @property
    def idle(self) -> int:
        """Number of jobs that may be submitted now."""
        free = sum(max(0, self.depth - len(queue.jobs)) for queue in self._queues)
        return max(0, free - len(self._unplaced))

    @property
    def n_jobs(self) -> int:
        """Number of jobs that run or wait."""
        return sum(len(queue.jobs) for queue in self._queues) + len(self._unplaced)

    @property
    def workers(self) -> list[Any]:
        """The workers that are up."""
        return [queue.worker for queue in self._queues]

    def add(self, worker: Any) -> None:
        """Add a worker that is up."""
        self._queues.append(WorkerQueue(worker))
        self._place()

    def submit(self, job: AnyJob) -> None:
        """Send a job to the worker with the fewest, or keep it until one has room."""
        self._unplaced.append(job)
        self._place()

    def _place(self) -> None:
        """Send jobs without a worker to the workers with the fewest jobs."""
        while self._unplaced and self._queues:
            queue = min(self._queues, key=lambda queue: len(queue.jobs))
            if len(queue.jobs) >= self.depth:
                return
            job = self._unplaced.popleft()
            if not queue.jobs:
                queue.began = self._clock()
            queue.jobs.append((self._send(queue.worker, job), job))

    def running(self) -> dict[Any, WorkerQueue]:
        """Give the handle of each job that runs, and its queue."""
        return {queue.jobs[0][0]: queue for queue in self._queues if queue.jobs}

    def finish(self, queue: WorkerQueue, seconds: float) -> None:
        """Take the first job off the queue. It is done and took so many seconds; the next one runs now."""
        queue.jobs.popleft()
        queue.began = self._clock()
        before = seconds if self._typical_s is None else self._typical_s
        self._typical_s = (1.0 - _SMOOTHING) * before + _SMOOTHING * seconds
        self._place()

    def remove(self, queue: WorkerQueue) -> tuple[AnyJob, float]:
        """Remove a worker that is gone. Give the job that it ran, and for how many seconds.

        The jobs behind that one go to other workers, and count as never begun.
        """
        self._queues.remove(queue)
        _, job = queue.jobs.popleft()
        self._unplaced.extendleft(waiting for _, waiting in reversed(queue.jobs))
        self._place()
        return job, self._clock() - queue.began

    def late(self) -> list[WorkerQueue]:
        """Give the queues whose job has run for longer than its time limit."""
        now = self._clock()
        timed = [queue for queue in self._queues if queue.jobs and queue.jobs[0][1].timeout_s]
        return [queue for queue in timed if now - queue.began > queue.jobs[0][1].timeout_s]

    def next_limit(self) -> float | None:
        """Give the time on the clock at which the first running job reaches its limit; None if none has one."""
        return min(
            (
                queue.began + queue.jobs[0][1].timeout_s
                for queue in self._queues
                if queue.jobs and queue.jobs[0][1].timeout_s
            ),
            default=None,
        )
