"""Limits as a person types them."""

from __future__ import annotations

import math

import pytest

from paredown.errors import InputError
from paredown.search.values import parse_limits

ORIGINAL = {"bytes": 2000.0, "latency_ms": 4.0, "accuracy": 0.9}
SENSES = {"bytes": None, "latency_ms": None, "divergence": False, "accuracy": True}


@pytest.mark.parametrize(
    ("texts", "limits"),
    [
        ("bytes<=500", {"bytes": (None, 500.0)}),
        ("accuracy>=0.98,latency_ms<=0.5", {"accuracy": (0.98, None), "latency_ms": (None, 0.5)}),
        (["bytes<=25%", " divergence <= 1e-2 "], {"bytes": (None, 500.0), "divergence": (None, 0.01)}),
        (["bytes<=600", "bytes <= 25 %", "bytes>=100"], {"bytes": (100.0, 500.0)}),
        ("bytes<500", {"bytes": (None, math.nextafter(500.0, 0.0))}),
    ],
)
def test_they_are_read(texts: str | list[str], limits: dict[str, tuple[float | None, float | None]]) -> None:
    assert parse_limits(texts, ORIGINAL, SENSES) == limits


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("bytes=500", "cannot read the limit 'bytes=500'"),
        ("knee", "cannot read the limit 'knee'"),
        ("", "cannot read the limit ''"),
        ("bytes<=25%%", "cannot read the limit"),
        ("bites<=500", "a limit is on one of bytes, latency_ms, divergence, accuracy, got 'bites'"),
        ("accuracy<=0.9", "accuracy is to be high, so its limit is 'accuracy>=0.9'"),
        ("divergence>0.1", "divergence is to be low, so its limit is 'divergence<0.1'"),
        ("accuracy>=99%", "a share of the original's is for costs"),
        ("bytes>=600,bytes<=500", "bytes cannot be at least 600 and at most 500"),
    ],
)
def test_what_cannot_be_used_is_named(text: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        parse_limits(text, ORIGINAL, SENSES)
