"""Difference of a model from itself: a smaller difference between two models means nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...errors import InputError
from ._compare import compare
from ._interleaved import Timer, interleaved

if TYPE_CHECKING:
    import numpy as np


def aa_floor(
    one: Timer,
    again: Timer | None = None,
    *,
    repeats: int = 5,
    min_rounds: int = 60,
    min_seconds: float = 0.2,
    rng: np.random.Generator,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> float:
    """Largest relative difference that `compare` finds between two names of one model, over `repeats` A/A tests.

    again  the same model, loaded once more: what one load differs from the next by is then in it. None: `one` itself

    0.02 means that on this machine, now, two names of one model came out 2 % apart.
    """
    if repeats < 1:
        raise InputError(f"an A/A floor needs at least one repeat, got {repeats}")
    worst = 0.0
    for _ in range(repeats):
        samples = interleaved(
            {"a": one, "again": again or one}, min_rounds=min_rounds, min_seconds=min_seconds, rng=rng, clock=clock
        )
        worst = max(worst, abs(math.log(compare(samples["a"], samples["again"]).ratio)))
    return math.expm1(worst)
