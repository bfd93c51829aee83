"""Percentiles and their interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.evaluators import LatencySamples


def test_percentiles_by_hand() -> None:
    samples = LatencySamples(tuple(float(ms) for ms in range(100, 0, -1)))
    percentiles = {name: found.value for name, found in samples.measurements().items()}
    assert percentiles == {"p10": 10.0, "p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}
    thirty = LatencySamples(tuple(float(ms) for ms in range(1, 31)))
    assert thirty.percentile(10) == 3.0
    assert {found.value for found in LatencySamples((7.0,)).measurements().values()} == {7.0}


def test_the_measurement_is_p10_and_keeps_the_samples() -> None:
    samples = LatencySamples(tuple(float(ms) for ms in range(1, 101)))
    measurement = samples.measurement()
    assert (measurement.value, measurement.unit, measurement.n, measurement.source) == (10.0, "ms", 100, "measured")
    assert measurement.samples == samples.ms
    assert measurement == samples.measurement()
    assert samples.measurement(keep_samples=False).samples == ()


def test_the_interval_is_that_of_the_plain_bootstrap() -> None:
    rng = np.random.default_rng(1)
    ms = np.sort(rng.lognormal(0.0, 0.3, 200))
    measurement = LatencySamples(tuple(ms.tolist())).measurement()
    plain = np.sort(ms[rng.integers(0, 200, (4000, 200))], axis=1)[:, 19]
    low, high = np.quantile(plain, (0.025, 0.975), method="inverted_cdf")
    assert measurement.low is not None
    assert measurement.high is not None
    ranks = [int(np.searchsorted(ms, bound)) for bound in (measurement.low, low, measurement.high, high)]
    assert abs(ranks[0] - ranks[1]) <= 1
    assert abs(ranks[2] - ranks[3]) <= 1


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300))
def test_the_interval_holds_p10_and_is_made_of_samples(ms: list[float]) -> None:
    measurement = LatencySamples(tuple(ms)).measurement()
    assert measurement.low is not None
    assert measurement.high is not None
    assert measurement.low <= measurement.value <= measurement.high
    assert {measurement.low, measurement.value, measurement.high} <= set(ms)


def test_the_interval_covers_what_it_says() -> None:
    """p10 of an exponential time is -log(0.9): 300 sessions of 100 runs."""
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(300):
        measurement = LatencySamples(tuple(rng.exponential(1.0, 100).tolist())).measurement()
        assert measurement.low is not None
        assert measurement.high is not None
        covered += measurement.low <= -math.log(0.9) <= measurement.high
    assert covered / 300 > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 300)


@pytest.mark.parametrize("q", [50, 90, 95, 99])
def test_every_percentiles_interval_covers_what_it_says(q: int) -> None:
    """Exponential times: 300 sessions of 400 runs, which are enough for p99."""
    rng = np.random.default_rng(q)
    covered, true = 0, -math.log(1 - q / 100)
    for _ in range(300):
        found = LatencySamples(tuple(rng.exponential(1.0, 400).tolist())).measurements()[f"p{q}"]
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= true <= found.high
    assert covered / 300 > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 300)


@pytest.mark.parametrize(("n", "open_ended"), [(35, {"p90", "p95", "p99"}), (60, {"p95", "p99"}), (368, set())])
def test_a_percentile_that_few_runs_say_nothing_of_has_an_open_end(n: int, open_ended: set[str]) -> None:
    """0.99 ** 367 is more than a fortieth and 0.99 ** 368 less; likewise 0.95 ** 72 and 0.9 ** 36."""
    found = LatencySamples(tuple(float(ms) for ms in range(n))).measurements()
    assert {name for name, measured in found.items() if measured.high is None} == open_ended
    assert all(measured.low is not None for name, measured in found.items() if name != "p10")
    assert all(measured.samples == () for measured in found.values())


@pytest.mark.parametrize("ms", [(), (1.0, math.nan), (math.inf,), (-0.1,)])
def test_what_are_no_times_is_refused(ms: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="latency samples must"):
        LatencySamples(ms)


@pytest.mark.parametrize("q", [0, -1, 101, math.nan])
def test_what_is_no_percentile_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match=r"must be in \(0, 100\]"):
        LatencySamples((1.0,)).percentile(q)
