"""Promises of the surrogate are believed less where they were not kept."""

from __future__ import annotations

import numpy as np

from paredown.search.searchers._prediction_discount import MOST, PRIOR, WINDOW, PredictionDiscount

SPAN = np.array([10.0, 100.0])
HERE, THERE = np.array([1.0, 10.0]), np.array([9.0, 90.0])


def factors(credit: PredictionDiscount) -> list[float]:
    return [float(value) for value in credit.factor(np.stack([HERE, THERE]), SPAN)]


def test_nothing_told_is_full_credit() -> None:
    assert factors(PredictionDiscount()) == [1.0, 1.0]


def test_a_broken_promise_counts_in_its_neighbourhood_alone() -> None:
    credit = PredictionDiscount()
    for _ in range(8):
        credit.add(HERE, 0.5, 0.0)
    near, far = factors(credit)
    assert near == PRIOR / (PRIOR + 8)  # the prior weighs as much as two promises of the middling kind, 0.5 each
    assert far > 0.999


def test_a_promise_that_is_kept_or_outdone() -> None:
    credit = PredictionDiscount()
    credit.add(HERE, 0.5, 0.5)
    assert factors(credit) == [1.0, 1.0]
    for _ in range(1000):
        credit.add(HERE, 0.5, 50.0)
    assert factors(credit)[0] == MOST
    assert len(credit._promised) == WINDOW


def test_no_promise_and_no_place_count_nothing() -> None:
    credit = PredictionDiscount()
    credit.add(HERE, 0.0, 0.0)
    credit.add(HERE, -1.0, 0.0)
    credit.add(np.array([np.nan, 1.0]), 1.0, 0.0)
    assert factors(credit) == [1.0, 1.0]
