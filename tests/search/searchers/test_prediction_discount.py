"""Predicted improvements are discounted where earlier ones did not come true."""

from __future__ import annotations

import numpy as np

from paredown.search.searchers import DISCOUNT_WINDOW, MAX_FACTOR, PRIOR_WEIGHT, PredictionDiscount

SPAN = np.array([10.0, 100.0])
HERE, THERE = np.array([1.0, 10.0]), np.array([9.0, 90.0])


def factors(discount: PredictionDiscount) -> list[float]:
    return [float(value) for value in discount.factor(np.stack([HERE, THERE]), SPAN)]


def test_without_results_nothing_is_discounted() -> None:
    assert factors(PredictionDiscount()) == [1.0, 1.0]


def test_a_wrong_prediction_counts_in_its_neighbourhood_alone() -> None:
    discount = PredictionDiscount()
    for _ in range(8):
        discount.add(HERE, 0.5, 0.0)
    near, far = factors(discount)
    assert near == PRIOR_WEIGHT / (PRIOR_WEIGHT + 8)  # the prior weighs as much as two median predictions, 0.5 each
    assert far > 0.999


def test_a_prediction_that_comes_true_or_is_outdone() -> None:
    discount = PredictionDiscount()
    discount.add(HERE, 0.5, 0.5)
    assert factors(discount) == [1.0, 1.0]
    for _ in range(1000):
        discount.add(HERE, 0.5, 50.0)
    assert factors(discount)[0] == MAX_FACTOR
    assert len(discount) == DISCOUNT_WINDOW


def test_no_improvement_and_no_place_count_nothing() -> None:
    discount = PredictionDiscount()
    discount.add(HERE, 0.0, 0.0)
    discount.add(HERE, -1.0, 0.0)
    discount.add(np.array([np.nan, 1.0]), 1.0, 0.0)
    assert factors(discount) == [1.0, 1.0]
