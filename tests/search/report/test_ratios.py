"""Ratios in words: a ratio inside the noise is a tie, in the table, on the page and in MLflow's text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from paredown.cli._tables import front_notes, front_table, reasons_table
from paredown.evaluators import Measurement
from paredown.search import Front
from paredown.search.mirrors import _mlflow_page
from paredown.search.report import page, ratio_of
from paredown.testing._fronts import example_front, example_trials

SPEEDUPS = {"t0": (0.99, 1.0, 1.01), "t8": (2.13, 2.15, 2.17), "t11": (1.00, 1.01, 1.02), "t17": (0.8, 1.5, 2.5)}


def timed(floor: float | None = None) -> Front:
    """The example, in which some points were timed beside the original, on a machine with this A/A floor."""
    front = example_front(Path("run"))
    points = []
    for point in front.points:
        metrics = dict(point.metrics)
        if point.id in SPEEDUPS:
            low, value, high = SPEEDUPS[point.id]
            metrics["speedup"] = Measurement(value=value, low=low, high=high, unit="x")
        if point.kind == "original" and floor is not None:
            metrics["aa_floor"] = Measurement(value=floor, unit="share")
        points.append(replace(point, metrics=metrics))
    return replace(front, points=tuple(points), limits={})


def text(front: Front, point: str, name: str = "latency_ms") -> str:
    found = ratio_of(front, front[point], name)
    return "" if found is None else found.text


def test_intervals_stand_beside_ratios_and_ties_are_ties() -> None:
    front = timed()
    assert text(front, "t8") == "2.15× [2.13, 2.17]"
    assert text(front, "t11") == "tie [1.00, 1.02]"
    assert text(front, "t17") == "tie [0.80, 2.50]"  # its interval holds 1
    assert text(front, "t0") == "tie [0.99, 1.01]"
    assert text(front, "t8", "bytes").endswith("×")


@pytest.mark.parametrize(("floor", "says"), [(0.02, "2.15× [2.13, 2.17]"), (0.099, "2.15× [2.13, 2.17]")])
def test_a_ratio_beyond_the_floor_stays(floor: float, says: str) -> None:
    front = timed(floor)
    assert text(front, "t8") == says
    assert front.noise_line == ""


def test_a_ratio_within_the_floor_is_a_tie() -> None:
    front = timed(0.08)
    points = [
        replace(p, metrics={**p.metrics, "speedup": Measurement(value=1.07, low=1.06, high=1.08)})
        if p.id == "t8"
        else p
        for p in front.points
    ]
    assert text(replace(front, points=tuple(points)), "t8") == "tie [1.06, 1.08]"
    without_test = tuple(p for p in points if p.kind != "original")
    assert text(replace(front, points=without_test), "t8") == "1.07× [1.06, 1.08]"


def test_latencies_of_a_noisy_machine_are_all_ties_and_said_to_mean_little(tmp_path: Path) -> None:
    front = timed(1.19)
    assert text(front, "t8") == "tie [2.13, 2.17]"
    assert front.noise_line.startswith(
        "the latencies mean little: two loads of the original itself came out 119 % apart"
    )
    assert front.noise_line in front_notes(front)
    (tmp_path / "front.png").write_bytes(b"")
    assert front.noise_line in page(front, example_trials(), tmp_path / "front.png")
    assert front.noise_line in _mlflow_page.note(front, {}, 0.0)
    assert front.to_dict()["aa_floor"] == 1.19


def test_modelled_latencies_have_no_noise_and_predicted_ones_tie() -> None:
    front = timed()
    original = front.original.metrics["latency_ms"].value

    def at(ratio: float, source: str) -> str:
        points = []
        for point in front.points:
            latency = Measurement(value=original / (ratio if point.id == "t8" else 1.0), source=source)  # type: ignore[arg-type]
            metrics = {k: m for k, m in point.metrics.items() if k != "speedup"} | {"latency_ms": latency}
            points.append(replace(point, metrics=metrics))
        return text(replace(front, points=tuple(points)), "t8")

    assert at(1.02, "modelled") == "1.02×"
    assert at(1.02, "predicted") == "tie"
    assert at(1.5, "predicted") == "1.50×"


def shown(front: Front, width: int) -> str:
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        console.print(front_table(front, width=width))
        console.print(reasons_table(front))
    return capture.get()


def test_the_front_fits_a_terminal_of_80_columns() -> None:
    """No figure and no interval is cut or broken, and the reasons stand below."""
    front = timed()
    noted = tuple(replace(p, note="better than uniform w4 a8 (t4)") if p.id == "t8" else p for p in front.points)
    text = shown(replace(front, points=noted), 80)
    assert max(len(line) for line in text.splitlines()) <= 80
    for point in front.points:
        accuracy = point.metrics["accuracy"]
        assert f"{100 * accuracy.value:.2f} %" in text
        assert f"[{100 * (accuracy.low or 0):.2f}, {100 * (accuracy.high or 0):.2f}]" in text
    assert "2.15× [2.13, 2.17]" in text
    assert "better than uniform w4 a8 (t4)" in text
    assert "…" not in text
    assert "2.15× [2.13, 2.17]" in shown(front, 200)


def test_where_nothing_is_starred_the_reason_stands_in_table_page_and_json(tmp_path: Path) -> None:
    front = replace(timed(), no_star="no ★: of 5 mixed points 5 are not better")
    line = f"{front.no_star}; the picks are of all verified points, baselines included"
    assert line in front_notes(front)
    (tmp_path / "front.png").write_bytes(b"")
    assert line in page(front, example_trials(), tmp_path / "front.png")
    assert line in _mlflow_page.note(front, {}, 0.0)
    assert front.to_dict()["no_star"] == front.no_star
    assert replace(front, picks={}).star_lines == (front.no_star,)
