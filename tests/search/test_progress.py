"""Where the time goes."""

import itertools

import pytest

from paredown.search import _progress
from paredown.search._progress import Stopwatch


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
