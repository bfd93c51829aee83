"""Which trials become points, whom each must beat, and what is recommended: by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paredown.errors import InputError, LimitsNotMet
from paredown.evaluators import Measurement
from paredown.search import Candidate, Completed, Failed, Front, Objective, Point
from paredown.search.front import LostBaseline, baseline_of, holm, nearest, select
from paredown.search.run import front_hypervolume
from paredown.search.values import Kind, misses, parse_bounds, trial_from_record, trial_to_record, violation

OBJECTIVES = (Objective(name="accuracy", maximise=True), Objective(name="bytes"))
GUIDE = (Objective(name="divergence"), Objective(name="bytes"))


def _trial(number: int, kind: Kind, accuracy: float, size: float, divergence: float) -> Completed:
    values = {"accuracy": accuracy, "bytes": size, "divergence": divergence}
    metrics = {name: Measurement(value=value) for name, value in values.items()}
    return Completed(number=number, candidate=Candidate(levels=(number,)), kind=kind, metrics=metrics)


ORIGINAL = _trial(0, "original", 0.90, 100, 0.0)
UNIFORM = [_trial(1, "uniform", 0.89, 50, 0.02), _trial(2, "uniform", 0.70, 25, 0.5)]
MIXED = [
    _trial(3, "mixed", 0.90, 40, 0.01),  # better and smaller than uniform t1
    _trial(4, "mixed", 0.88, 60, 0.03),  # dominated by t1
    _trial(5, "mixed", 0.91, 45, 0.05),  # a lucky draw: more right answers, but farther from the original than t3
    _trial(6, "mixed", 0.80, 30, 0.1),
]


def test_selection_by_hand() -> None:
    chosen = select([ORIGINAL, *UNIFORM, *MIXED], OBJECTIVES, GUIDE, {})
    assert chosen.original == ORIGINAL
    assert [t.number for t in chosen.mixed] == [6, 3]  # by rising cost; the lucky one is not among them
    assert {t.number for t in chosen.uniform} == {1, 2}
    assert {m: baseline.number for m, baseline in chosen.baselines.items()} == {3: 2, 6: 2}  # t1 costs more than t3
    assert chosen.front == {2, 3, 6}


def test_a_failed_trial_never_stands_on_a_front() -> None:
    failed = Failed(number=9, candidate=Candidate(levels=(9,)), kind="mixed", reason="NaN", seed=0)
    chosen = select([ORIGINAL, *UNIFORM, *MIXED, failed], OBJECTIVES, GUIDE, {})
    assert 9 not in {t.number for t in (*chosen.mixed, *chosen.uniform)} | chosen.front


def test_limits_keep_points_off_the_front_but_not_the_baselines() -> None:
    chosen = select([ORIGINAL, *UNIFORM, *MIXED], OBJECTIVES, GUIDE, {"accuracy": (0.85, None)})
    assert [t.number for t in chosen.mixed] == [3]
    assert {t.number for t in chosen.uniform} == {1, 2}


def test_what_no_one_can_tell_from_the_original_need_not_be_dearer() -> None:
    """By the divergences as they are, all three are on the front."""
    alike = [
        _trial(10, "mixed", 0.90, 90, 1e-6),
        _trial(11, "mixed", 0.901, 70, 2e-5),
        _trial(12, "mixed", 0.9, 55, 9e-5),
    ]
    guide = (Objective(name="divergence", indifference_threshold=1e-4), Objective(name="bytes"))
    assert [t.number for t in select([ORIGINAL, *alike], OBJECTIVES, GUIDE, {}).mixed] == [12, 11]
    assert [t.number for t in select([ORIGINAL, *alike], OBJECTIVES, guide, {}).mixed] == [12]


def test_at_most_a_dozen_that_spread() -> None:
    many = [_trial(10 + i, "mixed", 0.5 + 0.01 * i, 20 + i, 0.5 - 0.01 * i) for i in range(30)]
    chosen = select([ORIGINAL, *UNIFORM, *many], OBJECTIVES, GUIDE, {})
    assert len(chosen.mixed) == 12
    assert {chosen.mixed[0].number, chosen.mixed[-1].number} == {10, 39}  # the ends of the front are kept


def test_the_baseline_is_the_best_that_costs_no_more() -> None:
    cheap, good = _trial(7, "uniform", 0.6, 10, 1.0), _trial(8, "uniform", 0.8, 30, 0.2)
    assert baseline_of(_trial(9, "mixed", 0.9, 30, 0.1), [cheap, good], OBJECTIVES) == good
    assert baseline_of(_trial(9, "mixed", 0.9, 29, 0.1), [cheap, good], OBJECTIVES) == cheap
    assert baseline_of(_trial(9, "mixed", 0.9, 29.8, 0.1), [cheap, good], OBJECTIVES) == good  # a hair cheaper
    assert baseline_of(_trial(9, "mixed", 0.9, 9, 0.1), [cheap, good], OBJECTIVES) is None


def _failed(number: int, size: float | None) -> Failed:
    metrics = {} if size is None else {"bytes": Measurement(value=size)}
    return Failed(
        number=number, candidate=Candidate(levels=(number,)), kind="uniform", reason="no ranges", seed=0,
        metrics=metrics,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("size", "lost_to"),
    [
        (25, {3, 6}),  # as cheap as t2, which both have to beat: nobody knows which of the two is better
        (35, {3}),  # t6 is cheaper
        (20, set()),  # cheaper than t2, and so taken to be worse
        (60, set()),  # dearer than both
        (None, {3, 6}),  # an old ledger keeps no costs of what failed
    ],
)
def test_a_baseline_that_failed_might_have_been_the_one_to_beat(size: float | None, lost_to: set[int]) -> None:
    chosen = select([ORIGINAL, *UNIFORM, *MIXED, _failed(9, size)], OBJECTIVES, GUIDE, {})
    assert set(chosen.lost) == lost_to
    again = replace(UNIFORM[0], number=10, candidate=Candidate(levels=(9,)))  # another session evaluated it
    assert not select([ORIGINAL, *UNIFORM, *MIXED, _failed(9, size), again], OBJECTIVES, GUIDE, {}).lost


def test_where_every_baseline_failed_nothing_is_without_a_rival() -> None:
    chosen = select([ORIGINAL, *MIXED, _failed(9, 20), _failed(10, 35)], OBJECTIVES, GUIDE, {})
    assert {n: [f.number for f in lost] for n, lost in chosen.lost.items()} == {3: [9, 10], 6: [9]}


def test_a_failed_trial_keeps_its_costs_in_the_ledger() -> None:
    failed = _failed(9, 25)
    record = trial_to_record(failed)
    assert trial_from_record(record).metrics == failed.metrics
    del record["metrics"]
    assert trial_from_record(record).metrics == {}


def test_one_line_says_which_points_have_no_rival() -> None:
    lost = LostBaseline(id="t9", label="w8 a8", failed="evaluation", reason="no ranges", points=("t3", "t6"))
    assert FRONT.lost_line == ""
    assert replace(FRONT, lost=(lost,)).lost_line == (
        "no ★ for t3, t6: they would have to beat uniform w8 a8 (t9), which failed in evaluation: no ranges"
    )
    further = replace(lost, id="t10", label="w3 a8", points=("t5",))
    line = replace(FRONT, lost=(lost, further)).lost_line
    assert line.startswith("no ★ for t3, t6, t5: they would have to beat uniform w8 a8 (t9) and uniform w3 a8 (t10),")
    assert replace(FRONT, lost=(lost,)).to_dict()["lost_baselines"] == [
        {"id": "t9", "label": "w8 a8", "failed": "evaluation", "reason": "no ranges", "points": ["t3", "t6"]}
    ]


def test_holm_by_hand() -> None:
    # Holm 1979: 0.01 * 3, then max(that, 0.03 * 2), then max(that, 0.04 * 1)
    assert holm({1: 0.04, 2: 0.01, 3: 0.03}) == {2: 0.03, 3: 0.06, 1: 0.06}
    assert holm({}) == {}


def test_hypervolume_by_hand() -> None:
    baselines = [_trial(0, "original", 1.0, 100, 0.0), _trial(1, "uniform", 0.0, 50, 1.0)]
    assert front_hypervolume(baselines, OBJECTIVES, {}) == pytest.approx(0.0)
    half = _trial(2, "mixed", 0.5, 50, 0.1)  # halfway in quality, half the bytes: a quarter of the box
    assert front_hypervolume([*baselines, half], OBJECTIVES, {}) == pytest.approx(0.25)


def test_misses_say_by_how_much() -> None:
    metrics = MIXED[0].metrics
    limits = {"accuracy": (0.95, None), "bytes": (None, 20.0)}
    assert violation(metrics, limits) == pytest.approx(0.05 / 0.95 + 1.0)
    assert misses(metrics, limits) == "accuracy 0.9 (needs at least 0.95), bytes 40 (needs at most 20)"
    assert violation(metrics, {"latency_ms": (None, 1.0)}) == float("inf")
    found = nearest([ORIGINAL, *MIXED], limits)
    assert found is not None
    assert found.startswith("the nearest is t6")
    assert nearest([ORIGINAL, *MIXED], {}) is None


def _point(trial: Completed, *, recommended: bool = True) -> Point:
    return Point(
        id=f"t{trial.number}", kind=trial.kind, verified=True, recommended=recommended, metrics=trial.metrics,
        search_metrics=trial.metrics, config={},
    )  # fmt: skip


FRONT = Front(
    points=(
        _point(ORIGINAL, recommended=False), _point(MIXED[3]), _point(MIXED[0]), _point(MIXED[2], recommended=False)),
    picks={"knee": "t3"}, objectives=OBJECTIVES, limits={}, run=Path("run"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("knee", "t3"),
        ("t6", "t6"),
        ("t0", "t0"),
        ("accuracy>=0.85", "t3"),  # the smallest that keeps it
        ("bytes<=42", "t3"),  # the most accurate that fits
        ("accuracy>=0.905", "t5"),  # not recommended, but the only one
        (" accuracy >= 0.5 , bytes <= 30 ", "t6"),
        ("bytes<40", "t6"),
    ],
)
def test_pick(expression: str, expected: str) -> None:
    assert FRONT.pick(expression).id == expected


@pytest.mark.parametrize(
    ("expression", "error", "says"),
    [
        ("t99", InputError, "no point 't99' on this front; it has t0, t6, t3, t5"),
        ("accuracy>=", InputError, "cannot read"),
        ("accuracy=>0.9", InputError, "cannot read"),
        ("accuracy>=1e", InputError, "cannot read"),
        ("charm>=1", InputError, "no metric 'charm' on this front; it has"),
        ("accuracy>=0.99", LimitsNotMet, r"no point meets accuracy>=0\.99; the nearest is t5 with accuracy 0\.91"),
        ("fastest", LimitsNotMet, "this front has no point for 'fastest'"),
    ],
)
def test_what_cannot_be_picked(expression: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        FRONT.pick(expression)


def test_bounds_are_read() -> None:
    assert parse_bounds("a>=1,b<2.5e-1") == [("a", ">=", 1.0), ("b", "<", 0.25)]


def test_the_json_has_the_keys_that_were_promised() -> None:
    data: dict[str, Any] = FRONT.to_dict()
    assert {"points", "picks", "objectives", "limits"} <= set(data)
    assert {"id", "kind", "verified", "recommended", "metrics", "config"} <= set(data["points"][0])
    assert set(data["points"][0]["metrics"]["bytes"]) == {"value", "low", "high", "unit", "source", "split"}


def test_a_time_that_cannot_be_told_apart_costs_no_more() -> None:
    """Else a point that is foreseen a thousandth faster than the best uniform setting need not beat it."""
    timed = (OBJECTIVES[0], Objective(name="latency_ms"))

    def at(number: int, kind: Kind, accuracy: float, ms: float) -> Completed:
        trial = _trial(number, kind, accuracy, 50, 0.1)
        return replace(trial, metrics={**trial.metrics, "latency_ms": Measurement(value=ms, source="predicted")})

    fast, good = at(7, "uniform", 0.6, 0.05), at(8, "uniform", 0.8, 0.1)
    assert baseline_of(at(9, "mixed", 0.79, 0.0985), [fast, good], timed) == good
    assert baseline_of(at(9, "mixed", 0.79, 0.09), [fast, good], timed) == fast


def test_a_source_of_half_precision_and_larger_files_have_a_line_each() -> None:
    points = {point.kind: point for point in FRONT.points}
    size = points["original"].metrics["bytes"].value
    assert FRONT.size_lines == ()
    wide = {**points["original"].metrics, "fp32_bytes": Measurement(value=2 * size, unit="B")}
    large = {**points["mixed"].metrics, "file_bytes": Measurement(value=size + 1, unit="B")}
    original = replace(points["original"], metrics=wide)
    mixed = replace(points["mixed"], metrics=large, verified=True)
    lines = replace(FRONT, points=(original, mixed)).size_lines
    assert lines[0].endswith(f"in FP32, in which it computes here, it has {2 * size:.0f}")
    assert lines[1].startswith(f"the exported files of {mixed.id} are larger than the original: ")
