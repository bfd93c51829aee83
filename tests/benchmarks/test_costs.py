"""What the search itself costs, without the minutes that it takes to measure it."""

from __future__ import annotations

import json
import sys
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import costs
import pytest
from searchbench import goals, measure_search

from paredown.search import Candidate
from paredown.search.evaluation import AnyJob, AnyOutcome, EvaluateCandidate, Outcome
from paredown.search.run import Stopwatch


class TwoLanes:
    """A pool that does two jobs at a time and forgets none."""

    def __init__(self) -> None:
        self.jobs: deque[AnyJob] = deque()
        self.done: list[AnyJob] = []

    @property
    def idle(self) -> int:
        return 2 - len(self.jobs)

    @property
    def busy(self) -> int:
        return len(self.jobs)

    def submit(self, job: AnyJob) -> None:
        assert self.idle > 0
        self.jobs.append(job)

    def wait(self, timeout_s: float | None = None) -> list[AnyOutcome]:
        job = self.jobs.popleft()
        self.done.append(job)
        return [Outcome(job=job)]

    def close(self) -> None:
        self.jobs.clear()


def test_full_evaluations_stand_among_the_trials_and_no_trial_is_lost() -> None:
    inner, blocks = TwoLanes(), list[float]()
    prepared: Any = SimpleNamespace(space=SimpleNamespace(n_levels=(3, 3)))
    pool = measure_search._Interleaved(inner, prepared, blocks, every=4, block=6)
    candidate = Candidate(levels=(0, 0))
    waiting = [EvaluateCandidate(number=number, kind="mixed", candidate=candidate) for number in range(12)]
    came = list[int]()
    while waiting or pool.busy:
        while pool.idle and waiting:
            pool.submit(waiting.pop(0))
        came += [outcome.job.number for outcome in pool.wait(1.0)]
    assert came == list(range(12))
    assert len(blocks) == 3
    order = ["full" if job.number == measure_search.NO_TRIAL else "trial" for job in inner.done]
    assert order.count("full") == 18
    assert order[:6] == ["trial"] * 5 + ["full"]  # the fourth ends, the fifth was under way
    full = [job for job in inner.done if job.number == measure_search.NO_TRIAL]
    assert {(job.quality, job.test, job.incumbent) for job in full} == {("divergence", None, None)}


def test_what_was_measured_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, measured = tmp_path / "costs.json", []

    def measure(part: str) -> dict[str, Any]:
        measured.append(part)
        if part == "search-512" and measured.count(part) == 1:
            raise KeyboardInterrupt
        return {name: {"figure": 1.0} for name in costs.RESULTS[part]}

    fakes = {part: lambda part=part: measure(part) for part in costs.RESULTS}
    monkeypatch.setattr(costs, "_measures", lambda arguments: fakes)
    monkeypatch.setattr(sys, "argv", ["costs.py", "--parts", "ask", "search", "--out", str(out)])
    with pytest.raises(KeyboardInterrupt):
        costs.main()
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--missing"])
    costs.main()
    assert measured == ["ask", "search-2500", "search-512", "search-512"]
    found = json.loads(out.read_text())
    assert list(found) == [
        "ask_ms",
        "ask_without_shifts_ms",
        "own_work",
        "search_over_evaluations",
        "own_work_512",
        "search_over_evaluations_512",
    ]
    assert found["own_work_512"]["command"] == "python benchmarks/search/costs.py --parts search-512"
    assert {"date", "machine", "context"} <= set(found["own_work_512"])
    assert "executable" not in found["ask_ms"]["machine"]


def test_every_goal_has_a_part_that_measures_it() -> None:
    assert set(goals.LIMITS) <= {name for names in costs.RESULTS.values() for name in names}


def test_cpu_time_is_added_up_as_the_wall_clock_is() -> None:
    found: dict[str, float] = {}
    with measure_search._cpu_by_purpose(found):
        watch = Stopwatch()
        with watch.charge("mirrors"), watch.charge("ledger"):
            sum(range(100_000))
    assert set(found) == set(watch.seconds) == {"mirrors", "ledger"}
    assert found["ledger"] > found["mirrors"] >= 0.0
    with Stopwatch().charge("table"):
        pass
    assert "table" not in found
