"""Who runs the jobs: this process, or Ray's workers (`_ray.py`). Both look the same to the driver."""

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
from typing import Any, Protocol

from ..evaluation import Job, Outcome, Worker, run_job
from ..problem import EvaluationContext


class Pool(Protocol):
    """`submit` only while `idle > 0`; every submitted job comes out of `wait` once, in any order."""

    @property
    def idle(self) -> int: ...

    @property
    def busy(self) -> int: ...

    def submit(self, job: Job) -> None: ...

    def wait(self, timeout_s: float | None = None) -> list[Outcome]: ...

    def close(self) -> None: ...


def worker_facts(threads: int) -> dict[str, Any]:
    """Where a number was computed: recorded with every trial."""
    import torch

    return {"host": platform.node(), "pid": os.getpid(), "threads": threads, "torch_threads": torch.get_num_threads()}


def python_path() -> str:
    """PYTHONPATH for a process that must find this very package, installed or not, and whatever this one can import."""
    package = sys.modules[__package__.partition(".")[0]]
    source = str(Path(package.__file__ or "").parent.parent)
    return os.pathsep.join(dict.fromkeys(filter(None, [source, *map(str, sys.path)])))


class InProcess:
    """One job at a time, here. `wait` runs what was submitted; the order of results is the order of jobs.

    A job that exceeds its limit is interrupted by a timer where there is one (main thread, POSIX); elsewhere it
    runs to its end. A crash of the interpreter takes the driver along: use workers where candidates may do that.
    """

    def __init__(self, context: EvaluationContext) -> None:
        import torch

        self._worker = Worker(context)
        self._facts = worker_facts(torch.get_num_threads())
        self._jobs: list[Job] = []

    @property
    def idle(self) -> int:
        return 0 if self._jobs else 1

    @property
    def busy(self) -> int:
        return len(self._jobs)

    def submit(self, job: Job) -> None:
        self._jobs.append(job)

    def wait(self, timeout_s: float | None = None) -> list[Outcome]:
        jobs, self._jobs = self._jobs, []
        return [self._run(job) for job in jobs]

    def _run(self, job: Job) -> Outcome:
        expired: list[str] = []
        try:
            with _time_limit(job.timeout_s, expired):
                outcome = run_job(self._worker, job, self._facts)
        except TimeoutError as error:  # it came in the very moment when the job was done
            outcome = Outcome(job=job, error=str(error), worker=self._facts)
        if expired:
            # the interruption may have struck anywhere, also where something was caught or put back
            self._worker.reset()
            outcome = replace(outcome, value=None, error=expired[0])
        return outcome

    def close(self) -> None:
        self._jobs.clear()


@contextlib.contextmanager
def _time_limit(seconds: float, expired: list[str]) -> Iterator[None]:
    """Raise `TimeoutError` in the code below once it has run for `seconds` (0: no limit), and note it in `expired`."""
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
