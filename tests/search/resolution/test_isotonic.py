from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from paredown.search.resolution import Falling

NUMBERS = st.lists(st.tuples(st.integers(0, 9), st.integers(-5, 5)), min_size=1, max_size=20)


def test_by_hand() -> None:
    # 4 and 8 rise, so they become 6; at 2 and 3, whose middle is 2.5
    curve = Falling.fit(np.array([3.0, 1.0, 2.0, 4.0]), np.array([8.0, 9.0, 4.0, 1.0]))
    assert curve.x.tolist() == [1.0, 2.5, 4.0]
    assert curve.y.tolist() == [9.0, 6.0, 1.0]
    assert curve(np.array([0.0, 1.0, 1.75, 2.5, 4.0, 99.0])).tolist() == [9.0, 9.0, 7.5, 6.0, 1.0, 1.0]


@given(NUMBERS)
def test_it_falls_and_keeps_the_mean(pairs: list[tuple[int, int]]) -> None:
    x, y = np.array(pairs, dtype=np.float64).T
    curve = Falling.fit(x, y)
    assert (np.diff(curve.y) < 0).all()
    assert curve.y.min() >= y.min()
    assert curve.y.max() <= y.max()


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=20))
def test_at_distinct_points_the_values_are_those_of_least_squares(values: list[int]) -> None:
    y = np.array(values, dtype=np.float64)
    curve = Falling.fit(np.arange(len(y), dtype=np.float64), y)
    blocks = np.unique(isotonic_regression(y, increasing=False).x.round(9))
    assert curve.y[::-1] == pytest.approx(blocks)
