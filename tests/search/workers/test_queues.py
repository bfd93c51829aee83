"""Queues of workers: no worker waits while there is work, and a time limit counts from when a job began."""

from __future__ import annotations

from paredown.search.evaluation import AnyJob, EstimateSensitivity
from paredown.search.workers import SHORT_S, WorkerQueues


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _queues(n: int, clock: Clock) -> tuple[WorkerQueues, list[tuple[str, int]]]:
    sent: list[tuple[str, int]] = []

    def send(worker: str, job: AnyJob) -> tuple[str, int]:
        assert isinstance(job, EstimateSensitivity)
        sent.append((worker, job.seed))
        return worker, job.seed

    queues = WorkerQueues(send, clock=clock)
    for i in range(n):
        queues.add(f"w{i}")
    return queues, sent


def _job(number: int, timeout_s: float = 10.0) -> EstimateSensitivity:
    """Any job will do; its seed says which one it is."""
    return EstimateSensitivity(n_samples=1, seed=number, timeout_s=timeout_s)


def test_one_job_each_until_they_are_known_to_be_short() -> None:
    clock = Clock()
    queues, sent = _queues(2, clock)
    assert queues.idle == 2
    queues.submit(_job(0))
    queues.submit(_job(1))
    assert sent == [("w0", 0), ("w1", 1)]
    assert queues.idle == 0
    queues.finish(queues.running()["w0", 0], 0.1)
    assert queues.depth == 2
    assert queues.idle == 3  # two for the one that is free, one more for the other
    for number in (2, 3, 4):
        queues.submit(_job(number))
    assert sent[2:] == [("w0", 2), ("w0", 3), ("w1", 4)]
    assert queues.idle == 0
    assert queues.n_jobs == 4
    assert set(queues.running()) == {("w0", 2), ("w1", 1)}


def test_long_jobs_are_not_queued() -> None:
    queues, _ = _queues(1, Clock())
    queues.submit(_job(0))
    queues.finish(next(iter(queues.running().values())), SHORT_S + 1.0)
    assert queues.idle == 1


def test_a_limit_counts_from_the_beginning_of_the_job() -> None:
    clock = Clock()
    queues, _ = _queues(1, clock)
    queues.submit(_job(0))
    queues.finish(queues.running()["w0", 0], 0.1)
    queues.submit(_job(1))
    queues.submit(_job(2))
    clock.now = 9.0
    assert queues.late() == []
    queues.finish(queues.running()["w0", 1], 9.0)
    clock.now = 18.0  # sent 18 s ago, at work for 9
    assert queues.late() == []
    assert queues.next_limit() == 19.0
    clock.now = 19.5
    assert [queue.worker for queue in queues.late()] == ["w0"]


def test_what_waits_behind_a_dead_worker_goes_to_another() -> None:
    clock = Clock()
    queues, sent = _queues(2, clock)
    for number in (0, 1):
        queues.submit(_job(number))
    queues.finish(queues.running()["w0", 0], 0.1)
    for number in (2, 3, 4):
        queues.submit(_job(number))
    clock.now = 3.0
    job, seconds = queues.remove(queues.running()["w0", 2])
    assert (job, seconds) == (_job(2), 3.0)
    assert sent[-1] == ("w1", 4)  # full: job 3 waits for a worker
    assert queues.n_jobs == 3
    assert queues.idle == 0
    queues.add("new")
    assert sent[-1] == ("new", 3)
    assert queues.idle == 1


def test_a_queue_without_a_limit_is_never_late() -> None:
    clock = Clock()
    queues, _ = _queues(1, clock)
    queues.submit(_job(0, timeout_s=0.0))
    clock.now = 1e6
    assert queues.late() == []
    assert queues.next_limit() is None
