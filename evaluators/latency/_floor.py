"""What a model differs from itself by: below that, a difference says nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...errors import InputError
from ._interleaved import Timer, interleaved
from ._samples import RANKED_BY

if TYPE_CHECKING:
    import numpy as np

TIE = 0.03
"""Relative differences of p10 below this are ties on any machine."""


def aa_floor(
    timer: Timer,
    *,
    repeats: int = 5,
    min_rounds: int = 60,
    min_seconds: float = 0.2,
    rng: np.random.Generator,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> float:
    """The largest relative difference between the p10 of `timer` and of itself, interleaved, over `repeats` A/A tests.

    0.02 means that on this machine, now, two names of one model came out 2 % apart.
    """
    if repeats < 1:
        raise InputError(f"an A/A floor needs at least one repeat, got {repeats}")
    worst = 0.0
    for _ in range(repeats):
        samples = interleaved(
            {"a": timer, "again": timer}, min_rounds=min_rounds, min_seconds=min_seconds, rng=rng, clock=clock
        )
        a, again = (samples[name].percentile(RANKED_BY) for name in ("a", "again"))
        worst = max(worst, _apart(a, again))
    return worst


def is_tie(a_ms: float, b_ms: float, floor: float = 0.0) -> bool:
    """Whether two latencies differ by less than max(3 %, `floor`) of the smaller, and so cannot be told apart."""
    return _apart(a_ms, b_ms) < max(TIE, floor)


def _apart(a: float, b: float) -> float:
    if a == b:
        return 0.0
    return abs(a - b) / min(a, b) if min(a, b) > 0 else math.inf
