"""Numbers as people read them: hand-made cases, and properties."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.cli import _format as fmt
from paredown.evaluators import Measurement


@pytest.mark.parametrize(
    ("name", "number", "unit", "text"),
    [
        ("accuracy", 0.98517, "fraction", "98.52 %"),
        ("accuracy", 0.5, "", "50.00 %"),
        ("agreement", 0.25, "fraction", "25.00 %"),
        ("bytes", 999.0, "B", "999 B"),
        ("bytes", 12345.0, "B", "12.3 kB"),
        ("file_bytes", 2.5e6, "", "2.50 MB"),
        ("latency_ms", 0.24123, "ms", "0.241 ms"),
        ("latency_ms", 12.0, "ms", "12.0 ms"),
        ("macs", 40_810_000.0, "MAC", "40.8 M"),
        ("bops", 7.0, "BOP", "7"),
        ("perplexity", 3.14159, "", "3.142"),
        ("divergence", 0.00123456, "nats", "0.001235 nats"),
        ("mse", float("nan"), "", "–"),
    ],
)
def test_value(name, number, unit, text):
    assert fmt.value(name, number, unit) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.4, "0 s"),
        (59.6, "1 m 00 s"),
        (61, "1 m 01 s"),
        (3600, "1 h 00 m"),
        (11520, "3 h 12 m"),
        (-3, "0 s"),
    ],
)
def test_seconds(seconds, text):
    assert fmt.seconds(seconds) == text


def test_measurement_has_its_interval_in_the_same_unit():
    measured = Measurement(value=0.985, low=0.981, high=0.989, unit="fraction", split="report")
    assert fmt.measurement("accuracy", measured) == "98.50 % [98.10, 98.90]"
    assert fmt.measurement("bytes", Measurement(value=100.0, unit="B")) == "100 B"
    assert fmt.measurement("bytes", None) == "–"


@given(st.floats(min_value=1e-12, max_value=1e12), st.integers(min_value=2, max_value=6))
def test_significant_digits_lose_no_more_than_they_say(number, digits):
    assert math.isclose(float(fmt.significant(number, digits)), number, rel_tol=0.5 * 10.0 ** (1 - digits) * 1.0001)


@given(st.floats(min_value=0, max_value=1e15))
def test_counts_are_short(number):
    assert len(fmt.count(number)) <= 12


def test_times():
    assert (fmt.times(4.0164), fmt.times(None), fmt.times(float("inf"))) == ("4.02×", "–", "–")
