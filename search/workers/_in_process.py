"""The protocol of a pool of workers, and the pool that runs jobs in this process."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from ..evaluation import AnyJob, AnyOutcome, Outcome, Worker, run_job

if TYPE_CHECKING:
    from ..problem import EvaluationContext


class Pool(Protocol):
    """Runs jobs on one worker or several.

    Jobs may be submitted while `idle > 0`. Every submitted job comes out of `wait` once, in any order.
    """

    @property
    def idle(self) -> int:
        """Number of jobs that may be submitted now."""
        ...

    @property
    def busy(self) -> int:
        """Number of jobs whose outcome has not come yet, and of workers that are still starting."""
        ...

    def submit(self, job: AnyJob) -> None:
        """Send a job to a worker."""
        ...

    def wait(self, timeout_s: float | None = None) -> list[AnyOutcome]:
        """Give the outcomes that have come, at the latest after `timeout_s` seconds (None: when there are some)."""
        ...

    def renew(self, context: EvaluationContext) -> None:
        """Let all later jobs see another context. No job may be running."""
        ...

    def close(self) -> None:
        """Stop the workers. Jobs that still run are lost."""
        ...


def worker_facts(threads: int) -> dict[str, Any]:
    """Describe the machine and process of a worker. The facts are recorded with every trial."""
    import torch

    return {"host": platform.node(), "pid": os.getpid(), "threads": threads, "torch_threads": torch.get_num_threads()}


def python_path() -> str:
    """Give the PYTHONPATH with which another process finds this very package and all that this process can import."""
    package = sys.modules[__package__.partition(".")[0]]
    source = str(Path(package.__file__ or "").parent.parent)
    return os.pathsep.join(dict.fromkeys(filter(None, [source, *map(str, sys.path)])))


class InProcess:
    """Runs one job at a time in this process. `wait` runs what was submitted, in that order.

    A job that exceeds its time limit is interrupted by a timer where there is one (main thread, POSIX). Elsewhere it
    runs to its end. A candidate that crashes the interpreter ends the search: use other processes in that case.
    """

    def __init__(self, context: EvaluationContext) -> None:
        import torch

        self._worker = Worker(context)
        self._facts = worker_facts(torch.get_num_threads())
        self._jobs: list[AnyJob] = []

    @property
    def idle(self) -> int:
        return 0 if self._jobs else 1

    @property
    def busy(self) -> int:
        return len(self._jobs)

    def submit(self, job: AnyJob) -> None:
        self._jobs.append(job)

    def wait(self, timeout_s: float | None = None) -> list[AnyOutcome]:
        jobs, self._jobs = self._jobs, []
        return [self._run(job) for job in jobs]

    def _run(self, job: AnyJob) -> AnyOutcome:
        expired: list[str] = []
        try:
            with _time_limit(job.timeout_s, expired):
                outcome: AnyOutcome = run_job(self._worker, job, self._facts)
        except TimeoutError as error:  # raised in the very moment when the job was done
            outcome = Outcome(job=job, error=str(error), worker=self._facts)
        if expired:
            # the interruption may have come anywhere, even while an exception was handled or the model restored
            self._worker.reset()
            outcome = replace(outcome, value=None, error=expired[0])
        return outcome

    def renew(self, context: EvaluationContext) -> None:
        self._worker = Worker(context)

    def close(self) -> None:
        self._jobs.clear()


@contextlib.contextmanager
def _time_limit(seconds: float, expired: list[str]) -> Iterator[None]:
    """Raise `TimeoutError` inside the block after `seconds` (0: never), and append its message to `expired`."""
    if not seconds or threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def expire(signum: int, frame: FrameType | None) -> None:
        expired.append(f"still running after {seconds:g} s; [budget] trial_timeout_s sets the limit")
        raise TimeoutError(expired[0])

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
