"""Costs add up, and a trace says what was known at which cost: by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from searchbench.meter import Meter, booked, cost_of
from searchbench.traces import Box, Trace, Unseen, improving, load_traces, trace_of

FULL, TABLE = 100, 10
BOX = Box(floor=1e-2, ceiling=1.0, cheapest=0.0, dearest=1000.0)


def trial(divergence: float, n_bytes: float, kind: str = "mixed", **changes: Any) -> dict[str, Any]:
    metrics = {
        "divergence": {"value": divergence}, "bytes": {"value": n_bytes}, "accuracy": {"value": 1 - 2 * divergence}
    }  # fmt: skip
    return {
        "type": "trial", "status": "completed", "kind": kind, "metrics": metrics, "levels": [0, int(n_bytes)], **changes
    }  # fmt: skip


@pytest.mark.parametrize(
    ("record", "passes"),
    [
        (trial(0.1, 500), 100),
        (trial(0.1, 500, samples=100), 100),
        (trial(0.1, 500, samples=0), 100),  # an old ledger, which does not say
        (trial(0.1, 500, status="dominated", samples=12), 12),
        (trial(0.1, 500, status="infeasible"), 0),
        (trial(0.0, 900, kind="original"), 0),
        (trial(0.1, 500, kind="uniform"), 100),
        ({"type": "row", "group": 0, "level": 1, "value": 0.1}, 10),
        ({"type": "row", "group": 0, "level": 1, "value": 0.1, "passes": 3.5}, 3.5),
        ({"type": "partial", "passes": 7}, 7),
        ({"type": "note", "text": "nothing was run"}, 0),
    ],
)
def test_what_each_record_costs(record: dict[str, Any], passes: float) -> None:
    assert cost_of(record, full=FULL, table_samples=TABLE) == passes


def test_the_meter_counts_each_record_once() -> None:
    records: list[dict[str, Any]] = [trial(0.1, 500)]
    meter = Meter(records, full=FULL, table_samples=TABLE)
    assert meter.read() == meter.read() == 100
    records.append({"type": "row"})
    assert meter.read() == 110


def test_costs_are_booked_by_purpose() -> None:
    records = [
        trial(0.1, 500, kind="uniform"), trial(0.1, 400), trial(0.1, 300, status="dominated", samples=20),
        {"type": "row"}, {"type": "partial", "passes": 5}, {"type": "gradients", "passes": 70},
    ]  # fmt: skip
    assert booked(records, full=FULL, table_samples=TABLE) == {
        "baselines": 100, "table": 10, "trials": 120, "partial": 5, "gradients": 70,
    }  # fmt: skip


def test_volume_in_the_box() -> None:
    assert BOX.volume([]) == 0.0
    # half of the height on the logarithmic scale (0.1 of 0.01 … 1), half of the bytes
    assert BOX.volume([(0.1, 500.0)]) == pytest.approx(0.25)
    assert BOX.volume([(1e-9, 0.0)]) == pytest.approx(1.0)
    assert BOX.volume([(1.5, 100.0), (0.1, 1001.0), (math.inf, 0.0)]) == 0.0


RECORDS = [
    trial(0.0, 900, kind="original"),
    {"type": "row"},
    trial(0.1, 500, kind="uniform"),
    trial(0.2, 600),  # worse in both
    trial(0.01, 100, status="dominated", samples=50),  # only an estimate: never on the front
    trial(2.0, 100),  # outside the box
    trial(0.01, 750),
    trial(0.01, 750),  # again
]


def test_only_full_evaluations_that_move_the_front_are_kept() -> None:
    found = improving(RECORDS, BOX, full=FULL, table_samples=TABLE)
    assert found == [(110.0, RECORDS[2]), (460.0, RECORDS[6])]


def test_a_trace_keeps_the_levels_and_the_metric() -> None:
    trace = a_trace(metric="accuracy")
    assert trace.points == ((110.0, 0.1, 500.0), (460.0, 0.01, 750.0))
    assert trace.levels == ((0, 500), (0, 750))
    assert trace.metrics == (0.8, 0.98)


def test_the_front_is_that_of_its_time() -> None:
    better = trial(0.05, 400)
    trace = trace_of(
        [*RECORDS, better], BOX, problem="p", searcher="s", seed=0, full=FULL, table_samples=TABLE
    )  # fmt: skip
    assert [trace.on_front(at) for at in (1.0, 1.1, 4.6, 100.0)] == [[], [0], [0, 1], [1, 2]]


def a_trace(**changes: Any) -> Trace:
    given: dict[str, Any] = {"problem": "p", "searcher": "s", "seed": 3, "full": FULL, "table_samples": TABLE}
    return trace_of(RECORDS, BOX, **(given | changes))


def test_a_trace_tells_volume_by_cost() -> None:
    trace = a_trace()
    assert (trace.spent, trace.evaluations) == (560.0, 5.6)
    assert trace.counts == {"completed": 4, "dominated": 1, "row": 1, "partial": 0}
    assert trace.volume_at(1.0) == 0.0
    assert trace.volume_at(1.1) == pytest.approx(0.25)
    assert trace.volume_at(4.6) == pytest.approx(0.25 + 0.5 * 0.25)
    assert trace.cost_to_reach(0.25) == 1.1
    assert trace.cost_to_reach(0.3) == 4.6
    assert trace.cost_to_reach(0.9) == math.inf


def test_a_trace_comes_back_from_its_file(tmp_path: Path) -> None:
    unseen = Unseen(
        n=5, name="accuracy", maximise=True, original=0.9, original_search=1.0, divergence=(0.2, None),
        metric=(0.7, None),
    )  # fmt: skip
    trace = a_trace(context={"budget": 5.0}, metric="accuracy")
    for number, one in enumerate((trace, replace(trace, unseen=unseen))):
        one.save(tmp_path / "p" / f"s-{number}.json")
    assert load_traces(tmp_path) == [trace, replace(trace, unseen=unseen)]


def test_a_trace_without_levels_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "p" / "s-3.json"
    a_trace().save(path)
    data = json.loads(path.read_text(encoding="utf-8"))
    for later in ("levels", "metrics", "unseen"):
        del data[later]
    path.write_text(json.dumps(data), encoding="utf-8")
    (trace,) = load_traces(tmp_path)
    assert (trace.levels, trace.metrics, trace.unseen) == ((), (), None)
    assert trace.volume_at(4.6) == a_trace().volume_at(4.6)
