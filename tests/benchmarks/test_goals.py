"""The table of goals, from traces made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import summarise
from searchbench import goals
from searchbench.intervals import summary
from searchbench.play import OWN
from searchbench.traces import Box, Trace

from paredown.search.values import hypervolume, non_dominated

BOX = Box(floor=1e-2, ceiling=1.0, cheapest=0.0, dearest=1000.0)
GOOD, FAIR = (0.01, 500.0), (0.1, 500.0)  # volumes 0.5 and 0.25


def trace(
    searcher: str, *points: tuple[float, tuple[float, float]], evaluations: float = 1000.0, **changes: Any
) -> Trace:
    """`points`: (full evaluations spent by then, (divergence, bytes))."""
    given: dict[str, Any] = {"problem": "resnet20-bits", "seed": 0, "samples": 10, "context": {"budget": evaluations}}
    return Trace(
        searcher=searcher, box=BOX, spent=10 * evaluations, points=tuple((10 * cost, *at) for cost, at in points),
        **(given | changes),
    )  # fmt: skip


def test_share_of_the_union() -> None:
    own = [trace(OWN, (50, FAIR), (150, GOOD), seed=seed) for seed in range(3)]
    goal = goals.share_of_union([*own, trace("tpe", (400, GOOD))])
    assert (goal.figure, goal.low, goal.high, goal.is_met) == (pytest.approx(0.5), pytest.approx(0.5), 0.5, False)
    assert goals.share_of_union([trace(OWN, (50, GOOD)), trace("tpe", (400, FAIR))]).is_met
    assert not goals.share_of_union([trace(OWN, (50, FAIR)), trace(OWN, (1900, GOOD))]).is_met
    assert goals.share_of_union([trace("tpe", (1, GOOD))]).is_met is None


def test_each_instance_has_its_own_union() -> None:
    traces = [trace(OWN, (50, FAIR), instance=0), trace(OWN, (50, GOOD), instance=1, seed=1)]
    assert goals.union_volume(traces, 0, 2000) == pytest.approx(0.25)
    assert goals.union_volume(traces, 1, 2000) == pytest.approx(0.5)
    assert goals.share_of_union(traces).figure == pytest.approx(1.0)


def test_cost_of_what_the_best_rival_has() -> None:
    rivals = [trace("tpe", (900, FAIR)), trace("nsga2", (900, (0.5, 500.0)))]
    assert goals.cost_of_the_best([trace(OWN, (50, FAIR)), *rivals]).figure == pytest.approx(0.05)
    late = goals.cost_of_the_best([trace(OWN, (200, GOOD)), *rivals])
    assert (late.figure, late.is_met) == (pytest.approx(0.2), False)
    assert "tpe" in late.note
    never = goals.cost_of_the_best([trace(OWN, (20, (0.5, 500.0))), *rivals])
    assert (never.figure, never.is_met) == (None, False)
    assert goals.cost_of_the_best([trace(OWN, (50, FAIR))]).is_met is None


def test_a_rival_that_is_handed_the_sweep_counts_apart() -> None:
    traces = [trace(OWN, (50, FAIR)), trace("nsga2", (900, FAIR)), trace("tpe+sweep", (900, GOOD))]
    assert goals.cost_of_the_best(traces).is_met
    assert not goals.cost_of_the_best(traces, assisted=True).is_met


def test_never_below_looks_at_every_checkpoint() -> None:
    own = trace(OWN, (20, FAIR), (150, GOOD), evaluations=300)
    assert goals.never_below([own, trace("spdy", (60, FAIR), (250, GOOD))]).figure == pytest.approx(0.0)
    goal = goals.never_below([own, trace("spdy", (20, FAIR), (90, GOOD))])
    assert (goal.figure, goal.is_met) == (pytest.approx(-0.25), False)
    assert "at 100 evaluations, before spdy" in goal.note
    assert "500" not in goal.note  # the default got no farther than 300


def test_costs_are_judged_by_their_limits() -> None:
    found = {goal.what: goal for goal in goals.of_costs({"ask_ms": {"figure": 5.1}, "store_again": {"figure": 0}})}
    judged = {what: goal.is_met for what, goal in found.items() if goal.figure is not None}
    assert list(judged.values()) == [False, True]
    assert len(found) == len(goals.LIMITS)


def test_the_summary_is_written(tmp_path: Path) -> None:
    for searcher, at in ((OWN, GOOD), ("tpe", FAIR)):
        for seed in range(2):
            trace(searcher, (40, at), seed=seed).save(tmp_path / "traces" / "resnet20-bits" / f"{searcher}-{seed}.json")
    text = summarise.summarise(tmp_path)
    assert "| evolution | 2 | 0.0000 | 0.5000 |" in text
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["goals"][0]["is_met"] is True
    assert (tmp_path / "hypervolume.png").stat().st_size > 10_000


def test_a_median_and_its_interval() -> None:
    found = summary([1.0, 2.0, 3.0, 4.0, 100.0])
    assert found["figure"] == 3.0
    assert 1.0 <= found["low"] <= 3.0 <= found["high"] <= 100.0


def test_the_best_few_points_of_a_front() -> None:
    points = np.array([[0.5, 0.5], [0.1, 0.9], [0.9, 0.1], [0.6, 0.6], [0.5, 0.5], [1.0, 0.0]])
    assert goals.best_subset(points, 1) == pytest.approx(0.25)
    assert goals.best_subset(points, 2) == pytest.approx(0.29)
    assert goals.best_subset(points, 3) == goals.best_subset(points, 9) == pytest.approx(0.33)
    rng = np.random.default_rng(0)
    cloud = rng.random((40, 2))
    front = cloud[non_dominated(cloud)]
    one = max(hypervolume(front[[i, j]], np.ones(2)) for i in range(len(front)) for j in range(len(front)))
    assert goals.best_subset(cloud, 2) == pytest.approx(one)
