"""Picks: by verified figures, among starred points, and never beside a point that is better in everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.evaluators import Measurement
from paredown.search import Objective, Point
from paredown.search.front._cost_scale import CostScale
from paredown.search.front._picks import picks_of
from paredown.search.values import Kind

ACCURACY, PERPLEXITY = Objective(name="accuracy", maximise=True), Objective(name="perplexity")
BYTES, LATENCY = Objective(name="bytes"), Objective(name="latency_ms")


def point(
    number: int, quality: float, size: float, ms: float, *, kind: Kind = "mixed", star: bool = True, wide: float = 0.001
) -> Point:
    """A verified point; `wide` is half the relative width of its speed-up's interval."""
    speedup = 1.0 / ms
    metrics = {
        "accuracy": Measurement(value=quality), "perplexity": Measurement(value=100 - quality),
        "bytes": Measurement(value=size), "latency_ms": Measurement(value=ms),
        "speedup": Measurement(value=speedup, low=speedup * (1 - wide), high=speedup * (1 + wide)),
    }  # fmt: skip
    return Point(
        id=f"t{number}", kind=kind, verified=True, recommended=star, metrics=metrics, search_metrics={}, config={}
    )


def picks(points: Sequence[Point], *objectives: Objective, floor: float = 0.0) -> dict[str, str]:
    objectives = objectives or (ACCURACY, BYTES)
    return picks_of(points, objectives, {}, CostScale(costs=tuple(objectives[1:]), floor=floor))


THREE = [point(1, 90, 100, 0.5), point(2, 88, 60, 0.3), point(3, 70, 50, 0.2)]


@pytest.mark.parametrize("quality", [ACCURACY, PERPLEXITY])
def test_picks_by_hand(quality: Objective) -> None:
    assert picks(THREE, quality, BYTES) == {"knee": "t2", "smallest": "t3", "fastest": "t3", "best": "t1"}
    assert picks(THREE, quality, LATENCY)["knee"] == "t2"
    assert picks(THREE, quality, BYTES, LATENCY)["best"] == "t1"
    assert picks(THREE, quality)["knee"] == "t1"


def test_only_starred_points_are_picked() -> None:
    assert set(picks([*THREE[:2], replace(THREE[2], recommended=False)]).values()) == {"t1", "t2"}


def test_without_a_star_the_best_of_all_verified_points_are_picked() -> None:
    """A uniform setting too; but not the original, and nothing that was not verified or misses a limit."""
    plain = [replace(p, recommended=False) for p in THREE]
    uniform = point(4, 89, 40, 0.1, kind="uniform", star=False)  # better than t2 and t3 in everything
    original = point(0, 95, 400, 1.0, kind="original", star=False)
    found = picks([original, *plain, uniform])
    assert {name: found[name] for name in ("smallest", "fastest", "best")} == {
        "smallest": "t4", "fastest": "t4", "best": "t1"
    }  # fmt: skip
    assert set(picks([original, *plain, replace(uniform, verified=False)]).values()) == {"t1", "t2", "t3"}
    scale = CostScale(costs=(BYTES,))
    assert picks_of([original, *plain], (ACCURACY, BYTES), {"accuracy": (89, None)}, scale)["smallest"] == "t1"
    assert picks([original]) == {}


def test_before_any_verification_they_are_mixed_points_of_the_front() -> None:
    waiting = [replace(p, verified=False, recommended=False) for p in THREE]
    uniform = point(4, 99, 10, 0.1, kind="uniform", star=False)
    found = picks([*waiting[:2], replace(waiting[2], on_front=False), replace(uniform, verified=False)])
    assert set(found.values()) == {"t1", "t2"}


def test_a_starred_point_that_another_beats_is_no_pick() -> None:
    better = point(4, 91, 99, 0.5, kind="uniform", star=False)
    assert "t1" not in picks([*THREE, better]).values()
    assert picks([*THREE, better])["best"] == "t2"


def test_where_all_starred_points_are_beaten_there_is_no_pick() -> None:
    assert picks([THREE[0], point(4, 91, 99, 0.4, kind="uniform", star=False)]) == {}


def test_of_latencies_that_tie_the_best_quality_is_the_fastest() -> None:
    ties = [point(1, 90, 100, 0.205), point(2, 88, 60, 0.3), point(3, 70, 50, 0.2)]
    assert picks(ties)["fastest"] == "t1"
    assert picks(ties, floor=0.01)["fastest"] == "t1"
    assert "fastest" not in picks(ties, floor=1.19)
    vague = [point(1, 90, 100, 0.3, wide=0.5), point(3, 70, 50, 0.2, wide=0.5)]
    assert picks(vague)["fastest"] == "t1"


figures = st.tuples(st.integers(0, 9), st.integers(1, 9), st.integers(1, 9), st.booleans())


@given(st.lists(figures, min_size=1, max_size=8), st.sampled_from([(BYTES,), (LATENCY,), (BYTES, LATENCY)]))
def test_no_pick_stands_beside_a_point_that_is_better_in_both(
    values: list[tuple[int, int, int, bool]], costs: tuple[Objective, ...]
) -> None:
    points = [point(n, q, s, m, star=star, wide=0.0001) for n, (q, s, m, star) in enumerate(values)]
    known = {p.id: p for p in points}
    scale = {"smallest": (BYTES,), "fastest": (LATENCY,)}
    for name, chosen in picks(points, ACCURACY, *costs).items():
        one = known[chosen]
        for other in points:
            shares = [other.metrics[cost.name].value / one.metrics[cost.name].value for cost in scale.get(name, costs)]
            better = other.metrics["accuracy"].value > one.metrics["accuracy"].value and all(s < 1.0 for s in shares)
            assert not better, name
