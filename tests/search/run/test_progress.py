"""Where the time goes."""

import itertools
from types import SimpleNamespace

import pytest

from paredown.search import Candidate, Completed, Progress
from paredown.search.run import Recorder, Stopwatch, _progress


def test_what_is_charged_within_another_charge_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0.0, 1.0)  # each look at it takes a second
    monkeypatch.setattr(_progress.time, "monotonic", lambda: next(clock))
    watch = Stopwatch(began=0.0)
    with watch.charge("table"):  # 0 to 5
        with watch.charge("ledger"):  # 1 to 2
            pass
        with pytest.raises(ValueError, match="as told"), watch.charge("ledger"):  # 3 to 4
            raise ValueError("as told")
    assert watch.seconds == {"ledger": 2.0, "table": 3.0}
    with watch.charge("table"):
        pass
    assert watch.drain() == {"ledger": 2.0, "table": 4.0}
    assert watch.drain() == {}


def test_the_table_counts_in_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four rows took eight seconds, six are to come; ten trials of one second after that."""
    now = [0.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    trial = Completed(number=0, candidate=Candidate(levels=(0,)), kind="uniform", metrics={}, seconds=1.0)
    state = SimpleNamespace(spent_s=0.0, trials=[trial], n_mixed=0)
    task = SimpleNamespace(budget=SimpleNamespace(time=None, trials=10))
    said: list[Progress] = []
    recorder = Recorder(SimpleNamespace(state=state, task=task), SimpleNamespace(), said.append)  # type: ignore[arg-type]
    recorder.workers = 1
    for seconds, done in ((0.0, 2), (8.0, 6), (16.0, 10)):
        now[0] = seconds
        recorder.say("table", done=done, total=12)
    recorder.say("search")
    assert [progress.left_s for progress in said] == [10.0, 10.0 + 12.0, 10.0 + 4.0, 10.0]
    state.trials.clear()
    recorder.say("table", done=11, total=12)
    assert said[-1].left_s is None
