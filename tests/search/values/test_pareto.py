from __future__ import annotations

import math

import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from paredown.search.values import crowding, fronts, hypervolume, knee, non_dominated, spread, unique_rows

# Whole numbers, so that equal coordinates and equal points occur often.
GRID = st.integers(0, 6).map(float)


def points(m: int, most: int = 30) -> st.SearchStrategy[np.ndarray]:
    return st.integers(1, most).flatmap(lambda n: arrays(np.float64, (n, m), elements=GRID))


ANY_POINTS = st.integers(1, 4).flatmap(points)


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a <= b).all() and (a < b).any())


def test_non_dominated_by_hand() -> None:
    objectives = [[1, 5], [2, 3], [2, 4], [4, 1], [4, 1], [5, 1], [0, math.nan]]
    assert non_dominated(objectives).tolist() == [True, True, False, True, True, False, False]


@given(ANY_POINTS)
def test_non_dominated_is_its_definition(objectives: np.ndarray) -> None:
    expected = [not any(dominates(other, row) for other in objectives) for row in objectives]
    assert non_dominated(objectives).tolist() == expected


@given(ANY_POINTS)
def test_the_front_agrees_with_moocore(objectives: np.ndarray) -> None:
    if objectives.shape[1] > 1:
        assert non_dominated(objectives).tolist() == moocore.is_nondominated(objectives, keep_weakly=True).tolist()


@given(ANY_POINTS)
def test_distinct_rows_are_those_of_numpy(points: np.ndarray) -> None:
    _, theirs, back = np.unique(points, axis=0, return_index=True, return_inverse=True)
    first, inverse = unique_rows(points)
    assert first.tolist() == theirs.tolist()
    assert inverse.tolist() == back.reshape(-1).tolist()


def test_nothing_in_nothing_out() -> None:
    assert non_dominated(np.zeros((0, 2))).tolist() == []
    assert fronts(np.zeros((0, 3))).tolist() == []
    assert hypervolume(np.zeros((0, 2)), [1, 1]) == 0.0
    assert hypervolume([], [1, 1]) == 0.0
    assert spread(np.zeros((0, 2)), 3) == []


@given(points(2))
def test_each_front_is_the_front_of_what_is_left(objectives: np.ndarray) -> None:
    ranks = fronts(objectives)
    for rank in range(int(ranks.max()) + 1):
        left = objectives[ranks >= rank]
        assert (non_dominated(left) == (ranks[ranks >= rank] == rank)).all()


def test_rows_with_nan_are_in_the_last_front() -> None:
    assert fronts([[math.nan, 0], [1, 1], [2, 2], [0, math.nan]]).tolist() == [2, 0, 1, 2]


def test_hypervolume_by_hand() -> None:
    # Steps from (1, 3), (2, 1) to (4, 4): 3·1 + 2·2; (3, 2) is dominated, (5, 0) lies beyond the reference.
    assert hypervolume([[1, 3], [2, 1], [3, 2], [5, 0]], [4, 4]) == 7.0
    # Boxes 1x1x2 and 2x1x1 from the corner (2, 2, 2), sharing 1x1x1.
    assert hypervolume([[1, 1, 0], [0, 1, 1]], [2, 2, 2]) == 3.0
    assert hypervolume([[3.0]], [5.0]) == 2.0
    assert hypervolume([[math.nan, 0], [4, 0]], [4, 4]) == 0.0


@settings(deadline=None)
@given(st.integers(2, 4).flatmap(lambda m: points(m, most=12)))
def test_hypervolume_agrees_with_moocore(objectives: np.ndarray) -> None:
    reference = np.full(objectives.shape[1], 5.5)
    assert hypervolume(objectives, reference) == pytest.approx(moocore.hypervolume(objectives, ref=reference), abs=1e-9)


def test_hypervolume_of_a_large_front_agrees_with_moocore() -> None:
    rng = np.random.default_rng(0)
    for m in (2, 3):
        sphere = np.abs(rng.normal(size=(150, m)))
        front = 1 - sphere / np.linalg.norm(sphere, axis=1, keepdims=True)
        assert hypervolume(front, np.ones(m)) == pytest.approx(moocore.hypervolume(front, ref=np.ones(m)), rel=1e-9)


def test_hypervolume_says_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="each of the 2 objectives, got 3"):
        hypervolume([[1, 2]], [3, 3, 3])
    with pytest.raises(ValueError, match="must not hold NaN"):
        hypervolume([[1, 2]], [3, math.nan])
    with pytest.raises(ValueError, match=r"got shape \(3,\)"):
        non_dominated([1, 2, 3])


def test_numbers_are_builtin() -> None:
    objectives = np.array([[0.0, 1.0], [1.0, 0.0], [0.4, 0.4]])
    assert type(hypervolume(objectives, [2, 2])) is float
    assert type(knee(objectives)) is int
    assert {type(i) for i in spread(objectives, 3)} == {int}


def test_crowding_by_hand() -> None:
    # The middle row's neighbours span 4 of 4 and 3 of 3; the third's 3 of 4 and 2 of 3.
    distance = crowding([[0, 3], [1, 2], [3, 1], [4, 0]])
    assert distance[0] == distance[3] == math.inf
    assert distance[1] == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert distance[2] == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert crowding([[1, 1]]).tolist() == [math.inf]


def test_spread_takes_the_ends_and_then_the_widest_gap() -> None:
    objectives = [[0, 10], [1, 9], [2, 8], [5, 5], [9, 1], [10, 0]]
    assert spread(objectives, 2) == [0, 5]
    assert spread(objectives, 3) == [0, 5, 3]
    assert sorted(spread(objectives, 99)) == [0, 1, 2, 3, 4, 5]


def test_spread_leaves_out_what_is_no_number_and_what_is_there_already() -> None:
    assert spread([[0, 1], [0, 1], [math.nan, 0], [1, 0], [math.inf, -1]], 5) == [0, 3]
    assert spread([[0, 1], [1, 0]], 0) == []
    assert spread([[3, 3], [3, 3]], 2) == [0]


@given(ANY_POINTS, st.integers(1, 8))
def test_every_beginning_of_a_spread_is_the_spread_of_fewer(objectives: np.ndarray, n: int) -> None:
    whole = spread(objectives, 8)
    assert whole[:n] == spread(objectives, n)
    assert len(whole) == min(8, len(np.unique(objectives, axis=0)))


def test_the_knee_is_where_both_are_cheap() -> None:
    assert knee([[0, 10], [1, 2], [5, 1], [10, 0]]) == 1
    assert knee([[0, 10], [1, 2], [1, 1.9], [10, 0], [0.5, math.nan]]) == 2
    assert knee([[7, 7]]) == 0
    with pytest.raises(ValueError, match="at least one row"):
        knee([[math.nan, 1]])


def test_the_knee_is_on_the_front_though_a_dominated_row_would_stretch_the_scale() -> None:
    assert knee([[0, 1], [0.2, 0.3], [1, 0], [100, 100]]) == 1
