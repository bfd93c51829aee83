"""Faster, slower, or neither: planted times, no clock."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.errors import InputError
from paredown.evaluators import LatencySamples
from paredown.evaluators.latency import compare


def noisy(scale: float, seed: int, n: int = 200, spread: float = 0.03) -> LatencySamples:
    rng = np.random.default_rng(seed)
    return LatencySamples(tuple(scale * (1.0 + rng.exponential(spread, n))))


def test_by_hand() -> None:
    other = LatencySamples((1.0, 2.0) * 20)
    half = compare(LatencySamples((0.5, 1.0) * 20), other)
    assert (half.ratio, half.low, half.high, half.error) == pytest.approx((0.5, 0.5, 0.5, 0.0))
    assert half.verdict == "faster"
    assert compare(other, LatencySamples((0.5, 1.0) * 20)).verdict == "slower"
    assert compare(other, other).verdict == "tie"


def test_the_floor_makes_ties() -> None:
    a, b = noisy(1.05, 1, spread=1e-3), noisy(1.0, 2, spread=1e-3)
    assert compare(a, b).verdict == "slower"  # 5 % is beyond the 3 %
    assert compare(a, b, floor=0.08).verdict == "tie"
    assert compare(noisy(1.02, 1, spread=1e-3), b).verdict == "tie"


def test_identical_models_are_ties_and_a_tenth_is_seen() -> None:
    same = [compare(noisy(1.0, 2 * n), noisy(1.0, 2 * n + 1)).verdict for n in range(100)]
    slower = [compare(noisy(1.1, 2 * n), noisy(1.0, 2 * n + 1)).verdict for n in range(100)]
    assert same.count("tie") >= 95
    assert slower.count("slower") >= 95


def test_a_neighbour_that_comes_for_a_third_of_the_time_does_not_mislead() -> None:
    wrong = {"by blocks": 0, "by the whole p10": 0}
    for n in range(40):
        rng = np.random.default_rng(n)
        a, b = (1.0 + rng.exponential(0.01, 200) for _ in range(2))
        for x in (a, b):
            x[60:130] *= rng.uniform(1.0, 2.0, 70)
        found = compare(LatencySamples(tuple(a)), LatencySamples(tuple(b)))
        wrong["by blocks"] += found.verdict != "tie"
    assert wrong["by blocks"] == 0


def test_a_wide_interval_is_a_tie_however_far_apart() -> None:
    rng = np.random.default_rng(0)
    blocks = np.repeat(rng.choice([0.5, 2.0], 10), 20)
    found = compare(LatencySamples(tuple(blocks)), LatencySamples(tuple(blocks[::-1])))
    assert found.low < 1.0 < found.high
    assert found.verdict == "tie"


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=60), st.floats(0.2, 5.0))
def test_it_is_a_ratio(times: list[float], factor: float) -> None:
    one, other = LatencySamples(tuple(factor * t for t in times)), LatencySamples(tuple(times))
    found, turned = compare(one, other), compare(other, one)
    assert found.ratio == pytest.approx(factor)
    assert found.low <= found.ratio * (1 + 1e-9)
    assert found.ratio <= found.high * (1 + 1e-9)
    assert turned.ratio == pytest.approx(1.0 / found.ratio)


def test_what_was_not_timed_together_is_refused() -> None:
    with pytest.raises(InputError, match="3 runs of one and 2 of the other"):
        compare(LatencySamples((1.0, 1.0, 1.0)), LatencySamples((1.0, 1.0)))
