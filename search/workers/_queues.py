"""Which worker has which jobs before it: one that runs, and while jobs are short, one more, so that no worker waits
for the driver."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..evaluation import Job

SHORT_S = 2.0
"""Jobs that take longer are not queued ahead: the few milliseconds until the driver sends the next are then nothing,
and what a searcher proposes later, it proposes with more known."""
_MEMORY = 0.3
"""Weight of the last job in the running mean of their seconds."""


@dataclass(slots=True, eq=False)
class WorkerQueue:
    """A worker, and the jobs that were sent to it, in the order in which it runs them.

    jobs   (what stands for the result, the job); the first one runs
    began  when the first one did: a job's time limit does not count while it is queued
    """

    worker: Any
    jobs: deque[tuple[Any, Job]] = field(default_factory=deque)
    began: float = 0.0


class WorkerQueues:
    """The bookkeeping of a pool whose workers run what they are sent one after another.

    send  (worker, job) -> what stands for the result
    """

    def __init__(self, send: Callable[[Any, Job], Any], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._send, self._clock = send, clock
        self._lanes: list[WorkerQueue] = []
        self._stranded: deque[Job] = deque()
        self._typical_s: float | None = None

    @property
    def depth(self) -> int:
        """How many jobs a worker may have before it. One, until it is known that they are short."""
        return 2 if self._typical_s is not None and self._typical_s < SHORT_S else 1

    @property
    def idle(self) -> int:
        """How many jobs may be submitted now."""
        free = sum(max(0, self.depth - len(queue.jobs)) for queue in self._lanes)
        return max(0, free - len(self._stranded))

    @property
    def n_jobs(self) -> int:
        return sum(len(queue.jobs) for queue in self._lanes) + len(self._stranded)

    @property
    def workers(self) -> list[Any]:
        return [queue.worker for queue in self._lanes]

    def add(self, worker: Any) -> None:
        """A worker that is up."""
        self._lanes.append(WorkerQueue(worker))
        self._place()

    def submit(self, job: Job) -> None:
        self._stranded.append(job)
        self._place()

    def _place(self) -> None:
        """Jobs without a worker go to whoever has the fewest."""
        while self._stranded and self._lanes:
            queue = min(self._lanes, key=lambda queue: len(queue.jobs))
            if len(queue.jobs) >= self.depth:
                return
            job = self._stranded.popleft()
            if not queue.jobs:
                queue.began = self._clock()
            queue.jobs.append((self._send(queue.worker, job), job))

    def running(self) -> dict[Any, WorkerQueue]:
        """What stands for the result -> lane, of the jobs that run."""
        return {queue.jobs[0][0]: queue for queue in self._lanes if queue.jobs}

    def finish(self, queue: WorkerQueue, seconds: float) -> None:
        """The first job of the lane is done and took so long; its next one runs now."""
        queue.jobs.popleft()
        queue.began = self._clock()
        before = seconds if self._typical_s is None else self._typical_s
        self._typical_s = (1.0 - _MEMORY) * before + _MEMORY * seconds
        self._place()

    def remove(self, queue: WorkerQueue) -> tuple[Job, float]:
        """The worker is gone: the job that ran, and its seconds. What was queued behind it goes to the others, and
        counts as never begun."""
        self._lanes.remove(queue)
        _, job = queue.jobs.popleft()
        self._stranded.extendleft(waiting for _, waiting in reversed(queue.jobs))
        self._place()
        return job, self._clock() - queue.began

    def late(self) -> list[WorkerQueue]:
        """Those whose job has run for longer than its limit."""
        now = self._clock()
        timed = [queue for queue in self._lanes if queue.jobs and queue.jobs[0][1].timeout_s]
        return [queue for queue in timed if now - queue.began > queue.jobs[0][1].timeout_s]

    def next_limit(self) -> float | None:
        """When the first limit of those that run will be reached, on the clock."""
        return min(
            (
                queue.began + queue.jobs[0][1].timeout_s
                for queue in self._lanes
                if queue.jobs and queue.jobs[0][1].timeout_s
            ),
            default=None,
        )
