"""The timing protocol, on a clock that the test turns."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest

from paredown.errors import InputError
from paredown.evaluators import aa_floor, interleaved


class Clock:
    """Nanoseconds that pass only while a timer runs."""

    def __init__(self) -> None:
        self.now = 0
        self.order: list[str] = []

    def __call__(self) -> int:
        return self.now

    def timer(self, name: str, *ms: float) -> Callable[[], None]:
        """Takes the next of `ms` each time, from the start again at the end."""
        count = 0

        def run() -> None:
            nonlocal count
            self.order.append(name)
            self.now += int(ms[count % len(ms)] * 1e6)
            count += 1

        return run


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_times_go_to_their_names() -> None:
    clock = Clock()
    timers = {"fast": clock.timer("fast", 1.0), "slow": clock.timer("slow", 3.0)}
    samples = interleaved(timers, min_rounds=60, min_seconds=0.0, rng=_rng(), clock=clock)
    assert samples["fast"].ms == (1.0,) * 60
    assert samples["slow"].ms == (3.0,) * 60


def test_each_round_runs_all_in_a_new_order() -> None:
    clock = Clock()
    names = ("a", "b", "c")
    interleaved(
        {n: clock.timer(n, 1.0) for n in names}, min_rounds=40, min_seconds=0, warmup_rounds=2, rng=_rng(), clock=clock
    )
    rounds = [tuple(clock.order[at : at + 3]) for at in range(0, len(clock.order), 3)]
    assert len(rounds) == 42
    assert all(sorted(one) == sorted(names) for one in rounds)
    assert len(set(rounds[2:])) == 6  # every order there is came up
    again = Clock()
    interleaved(
        {n: again.timer(n, 1.0) for n in names}, min_rounds=40, min_seconds=0, warmup_rounds=2, rng=_rng(), clock=again
    )
    assert again.order == clock.order


def test_short_runs_are_timed_for_long_enough() -> None:
    clock = Clock()
    timers = {"a": clock.timer("a", 1.0), "b": clock.timer("b", 4.0)}
    samples = interleaved(timers, min_rounds=60, min_seconds=1.0, rng=_rng(), clock=clock)
    assert len(samples["a"]) == len(samples["b"]) == 200


def test_long_runs_can_be_cut_short() -> None:
    clock = Clock()
    samples = interleaved({"a": clock.timer("a", 2000.0)}, max_seconds=5.0, rng=_rng(), clock=clock)
    assert len(samples["a"]) == 3
    samples = interleaved({"a": clock.timer("a", 9000.0)}, max_seconds=5.0, rng=_rng(), clock=clock)
    assert len(samples["a"]) == 1


def test_warm_up_is_not_timed() -> None:
    clock = Clock()
    timer = clock.timer("a", *([100.0] * 5 + [1.0] * 60))
    assert set(interleaved({"a": timer}, min_seconds=0, rng=_rng(), clock=clock)["a"].ms) == {1.0}


def test_the_collector_rests_meanwhile_and_works_again_after_an_error() -> None:
    seen = []

    def timer() -> None:
        seen.append(gc.isenabled())
        if len(seen) == 9:
            raise RuntimeError("the model broke")

    with pytest.raises(RuntimeError, match="the model broke"):
        interleaved({"a": timer}, rng=_rng())
    assert seen == [True] * 5 + [False] * 4
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timers": {}}, "nothing to time"),
        ({"min_rounds": 0}, "min_rounds must be at least 1"),
        ({"untimed": -1}, "untimed must be at least 0, got -1"),
        ({"warmup_rounds": -1}, "warmup_rounds 0, got 60 and -1"),
        ({"min_seconds": -1.0}, "min_seconds"),
        ({"min_seconds": float("nan")}, "min_seconds"),
        ({"max_seconds": 0.0}, "max_seconds positive"),
    ],
)
def test_what_cannot_be_timed_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        interleaved(**{"timers": {"a": lambda: None}, "rng": _rng(), **arguments})  # type: ignore[arg-type]


def test_the_floor_of_a_steady_machine_is_zero() -> None:
    clock = Clock()
    assert aa_floor(clock.timer("a", 2.0), rng=_rng(), clock=clock) == 0.0


def test_the_floor_is_the_worst_of_the_repeats() -> None:
    """With 1 round a test: the p10 are the two times themselves. 10 against 11 ms is a tenth, then it is steady."""
    clock = Clock()
    warm_up = [1.0] * 10
    timer = clock.timer("a", *warm_up, 10.0, 11.0, *warm_up, 10.0, 10.0)
    floor = aa_floor(timer, repeats=2, min_rounds=1, min_seconds=0, rng=_rng(), clock=clock)
    assert floor == pytest.approx(0.1)
    with pytest.raises(InputError, match="at least one repeat"):
        aa_floor(timer, repeats=0, rng=_rng())


def test_what_two_loads_of_a_model_differ_by_is_in_the_floor() -> None:
    clock = Clock()
    floor = aa_floor(clock.timer("a", 2.0), clock.timer("b", 2.1), rng=_rng(), clock=clock)
    assert floor == pytest.approx(0.05)


def test_untimed_runs_come_right_before_the_timed_one() -> None:
    clock = Clock()
    timers = {name: clock.timer(name, 2.0) for name in ("a", "b")}
    samples = interleaved(timers, min_rounds=3, min_seconds=0, warmup_rounds=0, untimed=2, rng=_rng(), clock=clock)
    assert samples["a"].ms == samples["b"].ms == (2.0,) * 3
    assert [len(set(clock.order[at : at + 3])) for at in range(0, len(clock.order), 3)] == [1] * 6
