"""Who runs what: no worker waits while there is work, and a limit counts from when a job began."""

from __future__ import annotations

from paredown.search.evaluation import Job
from paredown.search.workers import SHORT_S, Lanes


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _lanes(n: int, clock: Clock) -> tuple[Lanes, list[tuple[str, int]]]:
    sent: list[tuple[str, int]] = []

    def send(worker: str, job: Job) -> tuple[str, int]:
        sent.append((worker, job.token))
        return worker, job.token

    lanes = Lanes(send, clock=clock)
    for i in range(n):
        lanes.add(f"w{i}")
    return lanes, sent


def _job(number: int, timeout_s: float = 10.0) -> Job:
    return Job(method="trial", args=(), token=number, timeout_s=timeout_s)


def test_one_job_each_until_they_are_known_to_be_short() -> None:
    clock = Clock()
    lanes, sent = _lanes(2, clock)
    assert lanes.idle == 2
    lanes.submit(_job(0))
    lanes.submit(_job(1))
    assert sent == [("w0", 0), ("w1", 1)]
    assert lanes.idle == 0
    lanes.finish(lanes.running()["w0", 0], 0.1)
    assert lanes.depth == 2
    assert lanes.idle == 3  # two for the one that is free, one more for the other
    for number in (2, 3, 4):
        lanes.submit(_job(number))
    assert sent[2:] == [("w0", 2), ("w0", 3), ("w1", 4)]
    assert lanes.idle == 0
    assert lanes.n_jobs == 4
    assert set(lanes.running()) == {("w0", 2), ("w1", 1)}


def test_long_jobs_are_not_queued() -> None:
    lanes, _ = _lanes(1, Clock())
    lanes.submit(_job(0))
    lanes.finish(next(iter(lanes.running().values())), SHORT_S + 1.0)
    assert lanes.idle == 1


def test_a_limit_counts_from_the_beginning_of_the_job() -> None:
    clock = Clock()
    lanes, _ = _lanes(1, clock)
    lanes.submit(_job(0))
    lanes.finish(lanes.running()["w0", 0], 0.1)
    lanes.submit(_job(1))
    lanes.submit(_job(2))
    clock.now = 9.0
    assert lanes.late() == []
    lanes.finish(lanes.running()["w0", 1], 9.0)
    clock.now = 18.0  # sent 18 s ago, at work for 9
    assert lanes.late() == []
    assert lanes.next_limit() == 19.0
    clock.now = 19.5
    assert [lane.worker for lane in lanes.late()] == ["w0"]


def test_what_waits_behind_a_dead_worker_goes_to_another() -> None:
    clock = Clock()
    lanes, sent = _lanes(2, clock)
    for number in (0, 1):
        lanes.submit(_job(number))
    lanes.finish(lanes.running()["w0", 0], 0.1)
    for number in (2, 3, 4):
        lanes.submit(_job(number))
    clock.now = 3.0
    job, seconds = lanes.remove(lanes.running()["w0", 2])
    assert (job.token, seconds) == (2, 3.0)
    assert sent[-1] == ("w1", 4)  # full: job 3 waits for a worker
    assert lanes.n_jobs == 3
    assert lanes.idle == 0
    lanes.add("new")
    assert sent[-1] == ("new", 3)
    assert lanes.idle == 1


def test_a_lane_without_a_limit_is_never_late() -> None:
    clock = Clock()
    lanes, _ = _lanes(1, clock)
    lanes.submit(_job(0, timeout_s=0.0))
    clock.now = 1e6
    assert lanes.late() == []
    assert lanes.next_limit() is None
