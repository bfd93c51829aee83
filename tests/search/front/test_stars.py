"""Which points have a star, and what is said of each, on points with figures that are made up."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paredown.evaluators import Measurement
from paredown.search import Candidate, Completed, Objective, Point
from paredown.search.front._cost_scale import CostScale
from paredown.search.front._duels import duels_of
from paredown.search.front._select import Selection
from paredown.search.front._stars import Judgement, Jury, describe_no_star
from paredown.search.run import Verdict
from paredown.search.values import Kind, LeastGain

ACCURACY, PERPLEXITY = Objective(name="accuracy", maximise=True), Objective(name="perplexity")
BYTES, LATENCY = Objective(name="bytes"), Objective(name="latency_ms")
FIGURES = {"accuracy": (0.80, 0.01), "perplexity": (20.0, -0.5)}
"""Figure of a model of quality 0, and how much better one step makes it."""


def point(number: int, kind: Kind, quality: float, cost: float, *, metric: str = "accuracy", **more: Any) -> Point:
    """A verified point, `quality` steps above the base figure, in both directions of metrics.

    more  `ms`: (low, speed-up, high) over the original
    """
    base, step = FIGURES[metric]
    unit = "fraction" if metric == "accuracy" else ""
    metrics = {metric: Measurement(value=base + step * quality, unit=unit), "bytes": Measurement(value=cost)}
    if "ms" in more:
        low, value, high = more["ms"]
        metrics["speedup"] = Measurement(value=value, low=low, high=high)
        metrics["latency_ms"] = Measurement(value=1.0 / value)
    return Point(
        id=f"t{number}", kind=kind, verified=True, recommended=False, metrics=metrics, search_metrics=metrics,
        config={}, label="w4" if kind == "uniform" else "",
    )  # fmt: skip


def judged(
    points: Sequence[Point],
    *,
    surely: float = 0.5,
    metric: str = "accuracy",
    costs: tuple[Objective, ...] = (BYTES,),
    floor: float = 0.0,
    wanted: float | None = None,
    outputs: tuple[str, ...] = (),
    untested: Sequence[tuple[int, int]] = (),
    unverified: Mapping[int, str | None] | None = None,
    rivals: Mapping[int, tuple[int, ...]] | None = None,
    limits: Mapping[str, tuple[float | None, float | None]] | None = None,
    ended: str | None = "done",
) -> dict[int, Judgement]:
    """The judgement of all mixed points.

    surely      steps of quality from which on a lead is beyond noise
    untested    pairs that were never tested
    unverified  number -> reason of a baseline that failed; None: it is not verified yet
    """
    step = FIGURES[metric][1]
    quality = {"accuracy": ACCURACY, "perplexity": PERPLEXITY}[metric]
    verdicts = {}
    for one, other in itertools.permutations(points, 2):
        lead = (one.metrics[metric].value - other.metrics[metric].value) * (1 if quality.maximise else -1)
        if (one.number, other.number) not in untested:
            verdicts[one.number, other.number] = Verdict(
                number=one.number, rival=other.number, difference=lead, low=lead - 0.001, high=lead + 0.001,
                p_value=0.001 if lead >= surely * abs(step) - 1e-12 else 0.4,
            )  # fmt: skip
    verified = {p.number: SimpleNamespace(reason=None) for p in points if p.verified}
    verified |= {n: SimpleNamespace(reason=why) for n, why in (unverified or {}).items() if why is not None}
    run: Any = SimpleNamespace(
        path=Path("runs/one"),
        state=SimpleNamespace(
            verified=verified, verdicts=verdicts, ended=ended, facts=SimpleNamespace(outputs=outputs)
        ),
    )
    mixed = [trial(p) for p in points if p.kind == "mixed"]
    chosen = Selection(
        original=None, mixed=tuple(mixed), uniform=(), baselines={}, lost={}, front=frozenset(),
        rivals={n: tuple(replace(mixed[0], number=r) for r in each) for n, each in (rivals or {}).items()},
    )  # fmt: skip
    scale = CostScale(costs=costs, floor=floor)
    bounds = (0.0, 1.0) if metric == "accuracy" else (1.0, float("inf"))
    least = LeastGain.of_metric(bounds, wanted)
    return Jury(
        run=run, chosen=chosen, points={p.number: p for p in points}, duels=duels_of(points, quality, scale, least),
        objectives=(quality, *costs), metric=metric, scale=scale, least=least,
    ).judge(limits or {})  # fmt: skip


def trial(of: Point) -> Completed:
    return Completed(number=of.number, candidate=Candidate(levels=(of.number,)), kind=of.kind, metrics=of.metrics)


both = pytest.mark.parametrize("metric", ["accuracy", "perplexity"])


def points(metric: str, mixed: tuple[float, float], *uniform: tuple[float, float]) -> list[Point]:
    """The original, one mixed point t9, and uniform settings t1, t2, … with their (quality, bytes)."""
    baselines = [point(n, "uniform", *each, metric=metric) for n, each in enumerate(uniform, 1)]
    return [point(0, "original", 12, 1000, metric=metric), *baselines, point(9, "mixed", *mixed, metric=metric)]


@both
def test_a_star_says_what_was_beaten_and_by_how_much(metric: str) -> None:
    found = judged(points(metric, (10, 100), (8, 90), (5, 80), (10, 150)), metric=metric)[9]
    assert found.obstacle == ""
    assert found.note.startswith("better than uniform w4 (t1; bytes -10.0 %) by ")
    assert ("2.00 points of accuracy [1.90, 2.10]" if metric == "accuracy" else "1 of perplexity [") in found.note
    assert metric == "accuracy" or "6.2 %" in found.note  # 1 of 16
    assert found.note.endswith("; as good as uniform w4 (t3; bytes +50.0 %)")
    assert found.rival is not None
    assert (found.rival.id, found.rival.p_value) == ("t1", 0.001)


@both
def test_a_lead_within_noise_has_no_star(metric: str) -> None:
    found = judged(points(metric, (10, 100), (9.8, 90)), metric=metric)[9]
    assert found.obstacle == "not better"
    assert found.note.startswith("lead over uniform w4 (t1; bytes -10.0 %) not confirmed: ")


@both
def test_the_rival_is_the_best_of_all_that_cost_no_more(metric: str) -> None:
    """Any baseline counts, also one that was not chosen as the rival on the search split."""
    found = judged(points(metric, (10, 100), (5, 90), (11, 60), (7, 100.9)), metric=metric)[9]
    assert found.obstacle == "not better"
    assert found.note.startswith("uniform w4 (t2; bytes -40.0 %) is better by ")


@both
def test_a_better_baseline_for_a_little_more_takes_the_star(metric: str) -> None:
    found = judged(points(metric, (10, 100), (5, 90), (11, 109)), metric=metric)[9]
    assert found.obstacle == "neighbour"
    assert found.note.startswith("uniform w4 (t2; bytes +9.0 %) is better by ")
    assert judged(points(metric, (10, 100), (5, 90), (11, 111)), metric=metric)[9].obstacle == ""
    assert judged(points(metric, (10, 100), (5, 90), (10.3, 109)), metric=metric)[9].obstacle == ""  # within noise


@both
def test_a_gain_has_to_be_worth_telling(metric: str) -> None:
    close = points(metric, (9.15, 100), (9, 90))  # .15 points; .075 of 15.5
    found = judged(close, metric=metric, surely=0.1)[9]
    assert found.obstacle == "small"
    assert "only, which is less than is worth telling" in found.note
    assert judged(close, metric=metric, surely=0.1, wanted=0.0001)[9].obstacle == ""
    far = points(metric, (9.4, 100), (9, 90))
    assert judged(far, metric=metric, surely=0.1)[9].obstacle == ""
    assert judged(far, metric=metric, surely=0.1, wanted=0.05)[9].obstacle == "small"


@both
def test_or_the_same_for_five_percent_less(metric: str) -> None:
    def against(cost: float) -> str:
        return judged(points(metric, (9.15, 100), (9, 90), (9.15, cost)), metric=metric, surely=0.1)[9].obstacle

    assert against(106) == ""
    assert against(104) == "small"
    # a bad baseline that is dear proves nothing
    assert judged(points(metric, (9.15, 100), (9, 90), (2, 300)), metric=metric, surely=0.1)[9].obstacle == "small"
    found = judged(points(metric, (9.15, 100), (9, 90), (9.15, 300), (9.3, 104)), metric=metric, surely=0.1)[9]
    assert found.obstacle == "neighbour"


@both
def test_without_a_rival_there_is_no_star_but_what_it_loses(metric: str) -> None:
    found = judged(points(metric, (10, 50), (9, 60), (11, 90)), metric=metric)[9]
    assert found.obstacle == "no rival"
    assert found.rival is None
    assert found.note.startswith(
        "cheaper than every baseline, of which uniform w4 (t1; bytes +20.0 %) is the nearest; against the original it "
        "loses "
    )
    assert ("2.00 points of accuracy" if metric == "accuracy" else "1 of perplexity") in found.note


def test_the_original_is_a_baseline() -> None:
    """A point may take more bytes than the original, or as much time."""
    assert judged(points("accuracy", (12, 1100), (5, 90)))[9].note.startswith("lead over the original (bytes -9.1 %)")
    assert judged(points("accuracy", (10, 960), (5, 90)))[9].note.startswith("the original (bytes +4.2 %) is better by")


def test_leads_are_corrected_for_the_number_of_points() -> None:
    members = [point(0, "original", 12, 1000), point(1, "uniform", 5, 90), point(9, "mixed", 10, 100)]
    for further, p_value in ((0, 0.001), (1, 0.002), (60, 0.061)):
        more = [point(100 + n, "mixed", 10, 101) for n in range(further)]
        found = judged([*members, *more])[9]
        assert found.rival is not None
        assert found.rival.p_value == pytest.approx(p_value)
        assert found.obstacle == ("" if p_value <= 0.05 else "not better")


def timed(ms: Mapping[int, tuple[float, float, float]], mixed: tuple[float, float]) -> list[Point]:
    """The original, uniform t1 of quality 5 and t2 of quality 9, and mixed t9, with their speed-ups."""
    kinds: tuple[tuple[int, Kind, float, float], ...] = (
        (0, "original", 12, 1000), (1, "uniform", 5, 100), (2, "uniform", 9, 100), (9, "mixed", *mixed),
    )  # fmt: skip
    return [point(n, kind, quality, cost, ms=ms[n]) for n, kind, quality, cost in kinds]


SURE = {0: (0.99, 1.0, 1.01), 1: (1.99, 2.0, 2.01), 2: (1.49, 1.5, 1.51), 9: (1.79, 1.8, 1.81)}


def test_latency_is_a_cost_by_its_ratio_to_the_original() -> None:
    found = judged(timed(SURE, (8, 500)), costs=(LATENCY,))[9]
    assert found.note.startswith("better than uniform w4 (t1; latency_ms -10.0 %) by 3.00 points")
    assert found.obstacle == ""


def test_a_rival_that_may_be_as_fast_costs_no_more() -> None:
    tie = {**SURE, 2: (1.5, 1.76, 1.9)}
    found = judged(timed(tie, (8, 500)), costs=(LATENCY,))[9]
    assert found.note.startswith("uniform w4 (t2; latency_ms tie) is better by 1.00 points")
    vague = {**SURE, 2: (1.2, 1.5, 1.8)}  # the intervals overlap
    assert judged(timed(vague, (8, 500)), costs=(LATENCY,))[9].note.startswith("uniform w4 (t2; latency_ms tie)")


def test_nothing_is_starred_for_its_latency_on_a_noisy_machine() -> None:
    found = judged(timed(SURE, (8, 500)), costs=(LATENCY,), floor=1.19)
    assert found[9].obstacle == "noisy"
    assert describe_no_star(found) == (
        "no ★: of 1 mixed points 1 is cheaper in nothing but latencies, which mean little here"
    )
    # bytes can still be told apart: t2 costs no more of them
    both = judged(timed(SURE, (8, 500)), costs=(BYTES, LATENCY), floor=1.19)[9]
    assert both.note.startswith("uniform w4 (t2; bytes -80.0 %) is better")
    fewer = judged(timed(SURE, (9.9, 100)), costs=(BYTES, LATENCY), floor=1.19)[9]
    assert fewer.note.startswith("better than uniform w4 (t2; bytes the same) by 0.90 points")


def test_a_floor_of_the_machine_widens_the_tie() -> None:
    assert judged(timed(SURE, (8, 500)), costs=(LATENCY,), floor=0.05)[9].obstacle == ""
    wide = {**SURE, 2: (1.69, 1.7, 1.71)}
    assert judged(timed(wide, (8, 500)), costs=(LATENCY,), floor=0.02)[9].obstacle == "neighbour"
    assert judged(timed(wide, (8, 500)), costs=(LATENCY,), floor=0.08)[9].obstacle == "not better"


def test_several_costs_must_all_be_no_higher() -> None:
    """The better uniform setting is slower, and so no rival; it is no neighbour either."""
    found = judged(timed(SURE, (8, 100)), costs=(BYTES, LATENCY))[9]
    assert found.obstacle == ""
    assert found.note.startswith("better than uniform w4 (t1; bytes the same, latency_ms -10.0 %) by 3.00 points")


def test_a_point_that_is_slower_than_the_original_has_no_star() -> None:
    slow = {**SURE, 9: (0.85, 0.87, 0.9)}
    found = judged(timed(slow, (14, 500)), costs=(BYTES, LATENCY))[9]
    assert (found.obstacle, found.note) == ("slower", "measured slower than the original, 0.87 times as fast")
    assert judged(timed(slow, (14, 500)), costs=(BYTES, LATENCY), floor=0.5)[9].obstacle == ""


def test_what_is_not_known_yet_is_not_said_to_have_failed() -> None:
    members = points("accuracy", (10, 100), (8, 90), (11, 105))
    running = judged(members, unverified={5: None}, rivals={9: (5,)}, ended=None)[9]
    assert (running.obstacle, running.note) == ("pending", "its baseline t5 is not verified yet")
    failed = judged(members, unverified={5: "export failed"}, rivals={9: (5,)})[9]
    assert (failed.obstacle, failed.note) == ("lost", "its baseline t5 could not be verified")
    untested = judged(members, untested=[(9, 1)], ended=None)[9]
    assert (untested.obstacle, untested.note) == ("pending", "not compared with uniform w4 (t1) yet")
    near = judged(members, untested=[(2, 9)])[9]
    assert near.note == "not compared with uniform w4 (t2) yet: `paredown resume runs/one` does it"


def test_a_limit_that_is_missed_on_the_report_split_takes_the_star() -> None:
    members = points("accuracy", (10, 100), (8, 90))
    assert judged(members, limits={"bytes": (None, 99)})[9].obstacle == "limit"
    found = judged(points("accuracy", (8, 100), (8, 90)), limits={"bytes": (None, 99)})[9]
    assert found.note.startswith("misses a limit on the report split: bytes 100 (needs at most 99); lead over")


def test_a_front_without_stars_says_why() -> None:
    assert describe_no_star({}) == "no ★: the front has no mixed point"
    obstacles = ("not better", "not better", "no rival", "lost")
    found = {n: Judgement(obstacle=each, note="…") for n, each in enumerate(obstacles)}  # type: ignore[arg-type]
    assert describe_no_star(found) == (
        "no ★: of 4 mixed points 2 are not better than the best baseline that costs no more, beyond noise; 1 is "
        "cheaper than every baseline, so that there is nothing to beat; 1 would have to beat a baseline that failed"
    )
    assert describe_no_star({**found, 9: Judgement(obstacle="", note="…")}) == ""


@pytest.mark.parametrize(
    ("bounds", "wanted", "figure", "least"),
    [
        ((0.0, 1.0), None, 0.9, 0.002),
        ((-1.0, 1.0), None, 0.9, 0.002),
        ((0.0, 100.0), None, 90.0, 0.2),
        ((1.0, float("inf")), None, 20.0, 0.2),
        ((float("-inf"), float("inf")), None, -4.0, 0.04),
        ((0.0, 1.0), 0.01, 0.9, 0.01),
        ((1.0, float("inf")), 0.05, 20.0, 1.0),
    ],
)
def test_the_least_gain(bounds: tuple[float, float], wanted: float | None, figure: float, least: float) -> None:
    assert LeastGain.of_metric(bounds, wanted).over(figure) == pytest.approx(least)
