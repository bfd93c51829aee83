"""Workers on Ray: actors that each hold one resident model. No other file imports Ray.

Ray's own retries are off, because it repeats a task that ran out of memory without end. The driver counts attempts
instead. Ray's dashboard and its usage reports are off.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ...errors import ParedownError
from ..evaluation import AnyJob, AnyOutcome, Outcome, Worker, run_job
from ._in_process import python_path, worker_facts
from ._queues import WorkerQueue, WorkerQueues

if TYPE_CHECKING:
    from ..problem import EvaluationContext

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # Ray prints a dead worker's post-mortem to stdout, which is for data only
}
_MAX_FAILED_STARTS = 3
"""The run ends if so many workers in a row could not be started."""


class _Actor:
    """The process of one worker. It sets the number of threads, and records the number that torch then reports."""

    def __init__(self, context: EvaluationContext, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._worker = Worker(context)
        self._facts = worker_facts(threads)

    def ready(self) -> bool:
        return True

    def renew(self, context: EvaluationContext) -> None:
        self._worker = Worker(context)

    def run(self, job: AnyJob) -> AnyOutcome:
        return run_job(self._worker, job, self._facts)


class RayPool:
    """Runs jobs on Ray actors.

    An actor whose job exceeds its time limit is killed and replaced. The jobs queued behind that one go to others.

    workers  number of actors
    threads  of torch in each actor
    address  of a running cluster ("auto", "ray://…", "host:port"); None starts Ray on this machine for this run
    modules  the user's modules; they are sent by value, so that a worker needs no copy of the user's files
    """

    def __init__(
        self,
        context: EvaluationContext,
        *,
        workers: int,
        threads: int,
        address: str | None,
        modules: Sequence[ModuleType],
    ) -> None:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        import ray

        self._ray = ray
        self._owns_cluster = not ray.is_initialized()
        if self._owns_cluster:
            if address:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            else:
                ray.init(
                    num_cpus=max(workers, 1), include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
                    _node_ip_address="127.0.0.1", runtime_env={"env_vars": {"PYTHONPATH": python_path()}},
                )  # fmt: skip
        self._modules, self._threads = modules, threads
        self._context = self._put(context)
        self._remote: Any = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Actor)
        self._failed_starts = 0
        self._starting: dict[Any, Any] = {}
        self._queues = WorkerQueues(_send)
        for _ in range(workers):
            self._start()

    def _put(self, context: EvaluationContext) -> Any:
        """Store the context for all workers. The user's modules are pickled by value meanwhile."""
        pickle: Any = self._ray.cloudpickle
        for module in self._modules:
            pickle.register_pickle_by_value(module)
        try:
            return self._ray.put(context)
        finally:
            for module in self._modules:
                pickle.unregister_pickle_by_value(module)

    def renew(self, context: EvaluationContext) -> None:
        """Let all later jobs see another context: actors do what they are sent in order."""
        self._context = self._put(context)
        for actor in [*self._queues.workers, *self._starting.values()]:
            actor.renew.remote(self._context)

    def _start(self) -> None:
        """Start an actor. It gets jobs only once it is up, so that the start does not count against a time limit."""
        actor = self._remote.remote(self._context, self._threads)
        self._starting[actor.ready.remote()] = actor

    @property
    def idle(self) -> int:
        return self._queues.idle

    @property
    def busy(self) -> int:
        """Number of jobs that run or are queued, and of workers that are still starting."""
        return self._queues.n_jobs + len(self._starting)

    def submit(self, job: AnyJob) -> None:
        self._queues.submit(job)

    def wait(self, timeout_s: float | None = None) -> list[AnyOutcome]:
        """Wait until a job ends or exceeds its limit, a worker is up, or `timeout_s` passes.

        Raises `ParedownError` if workers cannot be started.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while waiting := [*(running := self._queues.running()), *self._starting]:
            ready, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0.0)
            if not ready:
                ready, _ = self._ray.wait(waiting, num_returns=1, timeout=self._patience(deadline))
            started = [reference for reference in ready if reference in self._starting]
            for reference in started:
                self._admit(reference)
            outcomes = [self._collect(r, running[r]) for r in ready if r in running] + self._expire()
            if outcomes or started or (deadline is not None and time.monotonic() >= deadline):
                return outcomes
        return []

    def _admit(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayError as exception:
            self._failed_starts += 1
            if self._failed_starts >= _MAX_FAILED_STARTS:
                raise ParedownError(
                    f"{self._failed_starts} workers in a row could not be started: {_death(exception)}; --workers 0 "
                    "runs everything in this process and shows what is wrong"
                ) from exception
            self._start()
            return
        self._failed_starts = 0
        self._queues.add(actor)

    def _patience(self, deadline: float | None) -> float:
        """Give the seconds to wait until the first time limit or the caller's deadline, at most five."""
        now, ends = time.monotonic(), [self._queues.next_limit(), deadline]
        return max(0.01, min([*(end - now for end in ends if end is not None), 5.0]))

    def _collect(self, reference: Any, queue: WorkerQueue) -> AnyOutcome:
        try:
            outcome: AnyOutcome = self._ray.get(reference)
        except self._ray.exceptions.RayError as exception:
            job, seconds = self._replace(queue)
            return Outcome(job=job, error=_death(exception), fatal=True, seconds=seconds)
        self._queues.finish(queue, outcome.seconds)
        return outcome

    def _expire(self) -> list[AnyOutcome]:
        outcomes: list[AnyOutcome] = []
        for queue in self._queues.late():
            job, seconds = self._replace(queue)
            why = f"still running after {job.timeout_s:g} s; [budget] trial_timeout_s sets the limit"
            outcomes.append(Outcome(job=job, error=why, seconds=seconds))
        return outcomes

    def _replace(self, queue: WorkerQueue) -> tuple[AnyJob, float]:
        """Kill a worker and start another. Give the job that it ran, and for how many seconds."""
        self._ray.kill(queue.worker)
        self._start()
        return self._queues.remove(queue)

    def close(self) -> None:
        for actor in [*self._queues.workers, *self._starting.values()]:
            self._ray.kill(actor)
        self._queues, self._starting = WorkerQueues(_send), {}
        if self._owns_cluster:
            self._ray.shutdown()


def _send(actor: Any, job: AnyJob) -> Any:
    return actor.run.remote(job)


def _death(exception: Exception) -> str:
    text = " ".join(str(exception).split())
    kind = type(exception).__name__
    if "OutOfMemory" in kind or "out of memory" in text.lower():
        return f"out of memory: the worker was killed ({text[:200]})"
    return f"the worker died ({kind}: {text[:200]})"
