from __future__ import annotations

import math
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.errors import InputError
from paredown.search import Candidate
from paredown.search.allocation import sweep
from paredown.search.values import SensitivityTable


def table(divergence: list[list[float]], cost: list[list[float]]) -> SensitivityTable:
    rows = tuple(tuple(row) for row in divergence)
    return SensitivityTable(divergence=rows, costs={"bytes": tuple(tuple(row) for row in cost)}, fixed={"bytes": 7.0})


@st.composite
def tables(draw: st.DrawFn) -> SensitivityTable:
    """Up to four groups of up to four levels, whole numbers, in no order: hulls with ties, equal and useless levels."""
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    numbers = st.integers(0, 12).map(float)
    rows = [[draw(st.lists(numbers, min_size=n, max_size=n)) for n in counts] for _ in range(2)]
    return table(rows[0], rows[1])


def every(t: SensitivityTable) -> list[tuple[float, float]]:
    candidates = [Candidate(levels=levels) for levels in product(*(range(len(row)) for row in t.divergence))]
    return [(t.cost_of("bytes", c), t.divergence_of(c)) for c in candidates]


def test_by_hand() -> None:
    # Slopes: group 0 saves 4 for 1 and then 2 for 8; group 1 saves 6 for 2 (its middle level lies above the hull).
    t = table([[0, 1, 9], [0, 2, 2]], [[8, 4, 2], [8, 5, 2]])
    assert [c.levels for c in sweep(t, "bytes", finer=False)] == [(0, 0), (1, 0), (1, 2), (2, 2)]


def test_finer_points_fill_a_wide_step() -> None:
    # The first group's bargain is better (1 for 1 against 1.5), but the second alone gives a budget in between.
    t = table([[0, 1000], [0, 900]], [[1000, 0], [600, 0]])
    assert [c.levels for c in sweep(t, "bytes")] == [(0, 0), (0, 1), (1, 0), (1, 1)]


@given(tables())
def test_on_the_hull_nothing_is_better(t: SensitivityTable) -> None:
    rest = every(t)
    for candidate in sweep(t, "bytes", finer=False):
        cost, divergence = t.cost_of("bytes", candidate), t.divergence_of(candidate)
        assert min(d for c, d in rest if c <= cost) == pytest.approx(divergence)


@given(tables())
def test_the_hull_is_the_whole_hull(t: SensitivityTable) -> None:
    """For any price of a byte, the best of all candidates is as good as the best of the swept ones."""
    swept = [(t.cost_of("bytes", c), t.divergence_of(c)) for c in sweep(t, "bytes", finer=False)]
    for price in (0.0, 0.05, 0.3, 1.0, 2.5, 40.0):
        assert min(d + price * c for c, d in swept) == pytest.approx(min(d + price * c for c, d in every(t)))


@given(tables())
def test_it_falls_in_cost_and_rises_in_divergence(t: SensitivityTable) -> None:
    for finer in (False, True):
        points = [(t.cost_of("bytes", c), t.divergence_of(c)) for c in sweep(t, "bytes", finer=finer)]
        for (cost, divergence), (cheaper, worse) in pairwise(points):
            assert cheaper < cost
            assert worse >= divergence


@given(tables())
def test_finer_points_come_between_and_take_none_away(t: SensitivityTable) -> None:
    coarse, fine = sweep(t, "bytes", finer=False), sweep(t, "bytes")
    assert set(coarse) <= set(fine)
    assert (coarse[0], coarse[-1]) == (fine[0], fine[-1])
    assert len(set(fine)) == len(fine)


def test_a_level_that_could_not_be_measured_is_never_used() -> None:
    t = table([[0, math.inf, math.nan, 5]], [[8, 4, 3, 2]])
    assert [c.levels for c in sweep(t, "bytes")] == [(0,), (3,)]


def test_a_group_without_any_usable_level_is_named() -> None:
    with pytest.raises(InputError, match="group 1 has no level with a finite divergence"):
        sweep(table([[0, 1], [math.nan, math.inf]], [[2, 1], [2, 1]]), "bytes")


def test_an_unknown_cost_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"\(bytes\), got 'energy'"):
        sweep(table([[0.0]], [[1.0]]), "energy")


def test_several_costs_by_weight() -> None:
    t = SensitivityTable(
        divergence=((0.0, 1.0), (0.0, 1.0)),
        costs={"bytes": ((10.0, 0.0), (1.0, 0.0)), "macs": ((1.0, 0.0), (10.0, 0.0))},
        fixed={},
    )
    assert [c.levels for c in sweep(t, {"bytes": 1.0, "macs": 0.1})][1] == (1, 0)
    assert [c.levels for c in sweep(t, {"bytes": 0.1, "macs": 1.0})][1] == (0, 1)


def test_levels_are_builtin_ints() -> None:
    t = table([[0, 1], [0, 2]], [[4, 2], [4, 2]])
    assert {type(level) for c in sweep(t, "bytes") for level in c.levels} == {int}


def test_a_large_space_is_swept_whole() -> None:
    rng = np.random.default_rng(0)
    cost = np.sort(rng.random((400, 7)), axis=1)[:, ::-1]
    divergence = np.sort(rng.random((400, 7)), axis=1)
    t = table(divergence.tolist(), cost.tolist())
    swept = sweep(t, "bytes")
    assert swept[0].levels == (0,) * 400
    assert swept[-1].levels == (6,) * 400
    assert len(swept) > 400
