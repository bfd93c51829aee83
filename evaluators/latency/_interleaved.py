"""Timing of several models against each other, run by run."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ...errors import InputError
from ._samples import LatencySamples

if TYPE_CHECKING:
    import numpy as np

Timer = Callable[[], None]


def interleaved(
    timers: Mapping[str, Timer],
    *,
    min_rounds: int = 60,
    min_seconds: float = 1.0,
    max_seconds: float = math.inf,
    warmup_rounds: int = 5,
    untimed: int = 0,
    rng: np.random.Generator,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, LatencySamples]:
    """Run every timer once a round, in a new random order each round, until there were `min_rounds` and `min_seconds`.

    timers       by name: a call runs the model once, and returns when the answer is there
    min_seconds  of timed runs of all timers together, warm-up not counted
    max_seconds  likewise; stops earlier than `min_rounds`, for models that take seconds (at least one round is run)
    untimed      runs of each before its timed one: among many, each else finds the caches full of the others
    clock        in nanoseconds

    What a neighbour on the machine does then hits all alike: run in consecutive blocks instead, a model differed from
    itself by more than its double. The garbage collector is off meanwhile. What a timer raises is raised.
    """
    if not timers:
        raise InputError("there is nothing to time: `timers` is empty")
    if untimed < 0:
        raise InputError(f"untimed must be at least 0, got {untimed}")
    if min_rounds < 1 or warmup_rounds < 0:
        raise InputError(f"min_rounds must be at least 1 and warmup_rounds 0, got {min_rounds} and {warmup_rounds}")
    if not (min_seconds >= 0 and max_seconds > 0):
        raise InputError(f"min_seconds must be at least 0 and max_seconds positive, got {min_seconds}, {max_seconds}")
    names = list(timers)
    for _ in range(warmup_rounds):
        for name in names:
            timers[name]()
    times: dict[str, list[int]] = {name: [] for name in names}
    spent, rounds = 0, 0
    collects = gc.isenabled()
    gc.disable()
    try:
        while (rounds < min_rounds or spent < min_seconds * 1e9) and (rounds == 0 or spent < max_seconds * 1e9):
            for index in rng.permutation(len(names)):
                timer = timers[names[index]]
                for _ in range(untimed):
                    timer()
                start = clock()
                timer()
                took = clock() - start
                times[names[index]].append(took)
                spent += took
            rounds += 1
    finally:
        if collects:
            gc.enable()
    return {name: LatencySamples(tuple(ns / 1e6 for ns in taken)) for name, taken in times.items()}
