"""Who survives, by hand and by the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.search.searchers import Survival, constrained_ranks, reference_directions, survivors
from paredown.search.values import fronts


def test_what_keeps_the_limits_comes_first() -> None:
    values = np.array([[1.0, 1.0], [0.0, 0.0], [2.0, 2.0], [0.0, 0.0]])
    violation = np.array([0.0, 0.5, 0.0, 0.1])
    assert constrained_ranks(values, violation).tolist() == [0, 3, 1, 2]


def test_the_crowded_go_first() -> None:
    values = np.array([[0.0, 10.0], [4.9, 5.1], [5.0, 5.0], [10.0, 0.0], [11.0, 11.0]])
    kept = survivors(values, np.zeros(5), 3)
    assert set(kept.tolist()) >= {0, 3}
    assert 4 not in kept.tolist()


def test_each_direction_keeps_its_nearest() -> None:
    """Six points near three directions of the simplex: one of each survives, the nearest."""
    values = np.array(
        [[1.0, 0.0, 0.0], [0.9, 0.1, 0.05], [0.0, 1.0, 0.0], [0.05, 0.9, 0.1], [0.0, 0.0, 1.0], [0.1, 0.05, 0.9]]
    )
    assert sorted(survivors(values, np.zeros(6), 3, "reference").tolist()) == [0, 2, 4]


@pytest.mark.parametrize(("m", "n", "count"), [(1, 7, 1), (2, 5, 5), (3, 15, 15), (3, 14, 10), (4, 4, 4), (3, 2, 3)])
def test_directions_fill_the_simplex(m: int, n: int, count: int) -> None:
    """C(divisions + m - 1, m - 1) points, as in the paper's table; never fewer than the corners."""
    directions = reference_directions(m, n)
    assert directions.shape == (count, m)
    assert directions.sum(axis=1) == pytest.approx(1.0)
    assert len(np.unique(directions, axis=0)) == count
    assert directions.min() >= 0.0


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 45), st.integers(1, 4),
    st.sampled_from(["crowding", "reference"]),
)  # fmt: skip
def test_no_survivor_is_of_a_worse_front(seed: int, rows: int, n: int, m: int, how: Survival) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 6, (rows, m)).astype(float)
    violation = np.where(rng.random(rows) < 0.3, rng.random(rows), 0.0)
    kept = survivors(values, violation, n, how).tolist()
    assert len(kept) == len(set(kept)) == min(n, rows)
    ranks = constrained_ranks(values, violation)
    out = sorted(set(range(rows)) - set(kept))
    assert not out or ranks[kept].max() <= ranks[out].min()
    assert ranks[kept].tolist() == sorted(ranks[kept].tolist())


@given(st.integers(0, 2**32 - 1), st.integers(0, 30))
def test_ranking_may_stop_when_enough_are_ranked(seed: int, enough: int) -> None:
    values = np.random.default_rng(seed).integers(0, 8, (30, 2)).astype(float)
    whole, some = fronts(values), fronts(values, enough)
    ranked = some < some.max()
    assert (some[ranked] == whole[ranked]).all()
    assert (whole[~ranked] >= some.max()).all()
    assert some.max() == whole.max() or ranked.sum() >= enough
