"""Levels that are dearer and worse leave the space, and candidates find their way in and out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.compressors import LayerSpec
from paredown.errors import InputError
from paredown.search import Candidate, Group, SearchSpace, SensitivityTable
from paredown.search.space import dominated_levels, reduce_space, relevant_costs, unpromising_levels
from paredown.testing import SyntheticProblem

SPECS = tuple(LayerSpec(weight_bits=bits) for bits in (32, 8, 6, 4, 2))
SPACE = SearchSpace(groups=(Group(name="a", layers=("a",), levels=SPECS), Group(name="b", layers=("b",), levels=SPECS)))
TABLE = SensitivityTable(
    # a: level 2 is worse than level 3 and dearer, surely; b: as much worse, but not surely
    divergence=((0.0, 1.0, 5.0, 3.0, 9.0), (0.0, 1.0, 5.0, 3.0, 9.0)),
    costs={
        "bytes": ((100.0, 80.0, 60.0, 40.0, 20.0),) * 2,
        "bops": ((100.0, 80.0, 30.0, 40.0, 50.0),) * 2,
    },
    fixed={"bytes": 1.0, "bops": 0.0},
    stderr=((0.0, 0.5, 0.6, 0.6, 0.5), (0.0, 0.5, 0.9, 0.9, 0.5)),
    n=((0, 8, 8, 8, 8),) * 2,
)


def _without_bops(table: SensitivityTable) -> SensitivityTable:
    return replace(table, costs={"bytes": table.costs["bytes"]})


def test_dearer_and_surely_worse_goes() -> None:
    assert dominated_levels(SPACE, _without_bops(TABLE), ["bytes"], {}) == ((0, 2),)  # 2 > 2 * 0.85, 2 < 2 * 1.27


def test_the_cheapest_in_any_cost_stays() -> None:
    assert dominated_levels(SPACE, TABLE, ["bytes"], {}) == ()  # level 2 has the fewest BOPs


def test_every_cost_that_matters_counts() -> None:
    more = replace(TABLE, costs={**TABLE.costs, "bops": ((100.0, 80.0, 30.0, 40.0, 20.0),) * 2})
    assert dominated_levels(SPACE, more, ["bytes", "bops"], {}) == ()
    assert dominated_levels(SPACE, more, ["bytes"], {}) == ((0, 2),)


@pytest.mark.parametrize(
    ("costs", "limits", "stderr"),
    [
        ([], {}, TABLE.stderr),
        (["bytes"], {"bytes": (30.0, None)}, TABLE.stderr),
        (["bytes"], {}, ()),
        (["bytes"], {}, ((math.nan,) * 5,) * 2),
    ],
)
def test_nothing_goes_where_nothing_is_sure(
    costs: list[str], limits: dict[str, tuple[float | None, float | None]], stderr: tuple[tuple[float, ...], ...]
) -> None:
    table = replace(_without_bops(TABLE), stderr=stderr)
    assert dominated_levels(SPACE, table, costs, limits) == ()


def test_a_level_that_failed_goes_unless_it_is_the_cheapest() -> None:
    failed = replace(_without_bops(TABLE), divergence=((0.0, math.inf, 5.0, 3.0, math.inf), TABLE.divergence[1]))
    assert dominated_levels(SPACE, failed, ["bytes"], {}) == ((0, 1), (0, 2))


def test_what_matters_are_objectives_and_limits() -> None:
    assert relevant_costs(["divergence", "bytes"], {"bops": (None, 1.0), "accuracy": (0.9, None)}, TABLE.costs) == [
        "bytes", "bops",
    ]  # fmt: skip


def test_the_way_in_and_out() -> None:
    reduced = reduce_space(SPACE, TABLE, [(0, 2), (1, 1), (1, 3)])
    assert reduced.space.n_levels == (4, 3)
    assert reduced.table.divergence == ((0.0, 1.0, 3.0, 9.0), (0.0, 5.0, 9.0))
    assert reduced.table.n == ((0, 8, 8, 8), (0, 8, 8))
    assert reduced.to_reduced(Candidate(levels=(3, 4))) == Candidate(levels=(2, 2))
    assert reduced.to_full(Candidate(levels=(2, 2))) == Candidate(levels=(3, 4))
    assert reduced.to_reduced(Candidate(levels=(2, 0))) is None
    assert reduced.to_reduced(Candidate(levels=(0, 3))) is None


def test_nonsense_is_refused() -> None:
    with pytest.raises(InputError, match="no level 5 of group 0"):
        reduce_space(SPACE, TABLE, [(0, 5)])
    with pytest.raises(InputError, match="every level of b would be dropped"):
        reduce_space(SPACE, TABLE, [(1, level) for level in range(5)])


PROBLEM = SyntheticProblem(n_groups=4, n_levels=5)


@given(st.sets(st.tuples(st.integers(0, 3), st.integers(1, 4))), st.data())
def test_every_candidate_of_the_narrowed_space_is_itself(dropped: set[tuple[int, int]], data: st.DataObject) -> None:
    reduced = reduce_space(PROBLEM.space, PROBLEM.table, dropped)
    inner = Candidate(levels=tuple(data.draw(st.integers(0, n - 1)) for n in reduced.space.n_levels))
    outer = reduced.to_full(inner)
    assert reduced.to_reduced(outer) == inner
    assert reduced.space.assignment(inner) == PROBLEM.space.assignment(outer)
    assert reduced.table.divergence_of(inner) == PROBLEM.table.divergence_of(outer)
    assert reduced.table.cost_of("bytes", inner) == PROBLEM.table.cost_of("bytes", outer)
    assert not dropped & set(enumerate(outer))
    told = reduced.visible([PROBLEM.trial(0, outer), PROBLEM.trial(1, Candidate(levels=(4, 4, 4, 4)))])
    assert told[0].candidate == inner
    assert len(told) == 1 + all((g, 4) not in dropped for g in range(4))


def test_a_guess_alone_speaks_against_levels_only_by_the_factor() -> None:
    bits = (32, 8, 6, 4, 2)
    group = Group(name="a", layers=("a",), levels=tuple(LayerSpec(weight_bits=b) for b in bits))
    space, costs = SearchSpace(groups=(group,)), {"bytes": ((320.0, 80.0, 90.0, 40.0, 20.0),)}

    def unpromising(*guess: float | None, factor: float = 4.0) -> set[tuple[int, int]]:
        return unpromising_levels(space, [guess], costs, ["bytes"], factor=factor)

    assert unpromising(0.0, 1.0, 5.0, 30.0, 200.0) == {(0, 2)}  # dearer than 8 bits, and five times as bad
    assert unpromising(0.0, 1.0, 5.0, 30.0, 200.0, factor=6.0) == set()
    assert unpromising(0.0, 1.0, None, 30.0, 200.0) == set()
    assert unpromising(0.0, 150.0, 5.0, 1.0, 200.0) == {(0, 1), (0, 2)}  # 4 bits beat both
    assert unpromising(50.0, 1.0, 1.0, 1.0, 1e9) == set()  # the neutral and the cheapest one stay
    assert unpromising_levels(space, [(0.0, 1.0, 5.0, 30.0, 200.0)], costs, [], factor=4.0) == set()
