"""Where the time goes."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from paredown.search import Candidate, Completed, Progress
from paredown.search.run import MemoryRecorder, State, Stopwatch


def test_what_is_charged_within_another_charge_is_counted_once() -> None:
    clock = itertools.count(0.0, 1.0)  # each look at it takes a second
    watch = Stopwatch(now=lambda: next(clock))
    with watch.charge("table"):  # 1 to 6
        with watch.charge("ledger"):  # 2 to 3
            pass
        with pytest.raises(ValueError, match="as told"), watch.charge("ledger"):  # 4 to 5
            raise ValueError("as told")
    assert watch.seconds == {"ledger": 2.0, "table": 3.0}
    with watch.charge("table"):
        pass
    assert watch.drain() == {"ledger": 2.0, "table": 4.0}
    assert watch.drain() == {}


def test_the_table_counts_in_what_is_left() -> None:
    """Four rows took eight seconds, six are to come; ten trials of one second after that."""
    now = [0.0]
    state = State()
    state.trials.append(Completed(number=0, candidate=Candidate(levels=(0,)), kind="uniform", metrics={}, seconds=1.0))
    budget: Any = SimpleNamespace(time=None, trials=10)
    said: list[Progress] = []
    recorder = MemoryRecorder(state, budget, said.append, workers=1, watch=Stopwatch(now=lambda: now[0]))
    for seconds, done in ((0.0, 2), (8.0, 6), (16.0, 10)):
        now[0] = seconds
        recorder.say("table", done=done, total=12)
    recorder.say("search")
    assert [progress.left_s for progress in said] == [10.0, 10.0 + 12.0, 10.0 + 4.0, 10.0]
    state.trials.clear()
    recorder.say("table", done=11, total=12)
    assert said[-1].left_s is None
