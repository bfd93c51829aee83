"""The picture, the page and the table of a run."""

import csv
import dataclasses
import io
import re
import sys
from html.parser import HTMLParser

import pytest

from paredown.evaluators import Measurement
from paredown.search import Front
from paredown.search.front import LostBaseline
from paredown.search.report import _axes as chart
from paredown.search.report import _html_chart as _page_chart
from paredown.search.report import page, trial_rows, trials_csv, write_report
from paredown.testing._fronts import LAYERS, example_front, example_space, example_trials

PNG = b"\x89PNG\r\n\x1a\n"


def empty(front):
    return Front(points=(), picks={}, objectives=(), limits={}, run=front.run)


def with_point(front, index, **changes):
    points = list(front.points)
    points[index] = dataclasses.replace(points[index], **changes)
    return dataclasses.replace(front, points=tuple(points))


@pytest.fixture
def front(tmp_path):
    return example_front(tmp_path)


def test_write_report_leaves_the_three_files(front, tmp_path):
    paths = write_report(tmp_path, front, example_trials(), space=example_space())
    assert [p.name for p in paths] == ["front.png", "front.html", "trials.csv"]
    assert (tmp_path / "front.png").read_bytes().startswith(PNG)
    assert "<h2>Points</h2>" in (tmp_path / "front.html").read_text()
    again = write_report(tmp_path, front, example_trials(), space=example_space())  # over what is there
    assert again == paths


def test_a_lost_baseline_is_named_on_the_page_and_in_the_picture(front, tmp_path):
    lost = LostBaseline(id="t4", label="w4 a8", failed="verification", reason="no <kernel>", points=("t8",))
    write_report(tmp_path, front, example_trials(), space=example_space())
    before = (tmp_path / "front.png").read_bytes()
    write_report(tmp_path, dataclasses.replace(front, lost=(lost,)), example_trials(), space=example_space())
    assert "which failed in verification: no &lt;kernel&gt;</p>" in (tmp_path / "front.html").read_text()
    assert (tmp_path / "front.png").read_bytes() != before


def test_latencies_stand_by_their_ratio_to_the_original_that_was_timed_beside_them(front):
    original = Measurement(value=2.0, unit="ms", low=1.9, high=2.1)
    mine = Measurement(value=1.6, unit="ms", low=1.5, high=1.7)  # on a machine that had slowed down meanwhile
    at = next(i for i, p in enumerate(front.points) if p.kind == "mixed")
    first = next(i for i, p in enumerate(front.points) if p.kind == "original")
    metrics = {**front.points[at].metrics, "latency_ms": mine}
    slower = with_point(front, first, metrics={**front.points[first].metrics, "latency_ms": original})
    slower = dataclasses.replace(slower, limits={})
    alone = chart.placed(with_point(slower, at, metrics=metrics), front.points[at], "bytes")
    assert alone is front.points[at].metrics["bytes"]
    metrics["speedup"] = Measurement(value=2.0, low=1.6, high=2.5)
    drawn = with_point(slower, at, metrics=metrics)
    found = chart.placed(drawn, drawn.points[at], "latency_ms")
    assert (found.value, found.low, found.high) == (1.0, 0.8, 1.25)
    x, y = chart.axis(drawn, "latency_ms"), chart.axis(drawn, chart.quality_name(drawn))
    assert "by the ratio to the original" in x.title
    assert next(d for d in chart.dots(drawn, x, y) if d.id == drawn.points[at].id).x == 1.0
    # where a limit is on it, what was measured counts
    limited = dataclasses.replace(drawn, limits={"latency_ms": (None, 1.0)})
    assert chart.placed(limited, limited.points[at], "latency_ms") is mine


def test_a_front_without_points_has_a_table_only(front, tmp_path):
    assert [p.name for p in write_report(tmp_path, empty(front), [], space=example_space())] == ["trials.csv"]
    assert not (tmp_path / "front.png").exists()


def test_the_picture_is_drawn_without_pyplot(front, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # an import of it fails
    write_report(tmp_path, front, example_trials(), space=example_space())


def test_a_picture_of_only_the_original_can_be_drawn(front, tmp_path):
    alone = dataclasses.replace(front, points=(front.original,), picks={})
    write_report(tmp_path, alone, example_trials()[:1], space=example_space())
    assert (tmp_path / "front.png").stat().st_size > 5000


def test_csv_has_a_row_for_each_trial_and_says_what_became_of_it():
    trials = example_trials()
    rows = list(csv.DictReader(io.StringIO(trials_csv(list(reversed(trials)), example_space()))))
    assert [r["trial"] for r in rows] == [f"t{t.number}" for t in trials]
    assert {r["outcome"] for r in rows} == {"completed", "failed", "infeasible"}
    (failed,) = [r for r in rows if r["outcome"] == "failed"]
    assert (failed["reason"], failed["accuracy"]) == ("divergence is NaN", "")
    assert [rows[0][fqn] for fqn in LAYERS] == ["fp32"] * 5
    assert rows[1]["stem.conv"] == "w8 a8"
    assert float(rows[1]["accuracy_low"]) < float(rows[1]["accuracy"]) < float(rows[1]["accuracy_high"])
    assert "bytes_low" not in rows[0]  # exact


def test_quality_stands_before_costs():
    columns, _ = trial_rows(example_trials(), example_space())
    assert columns.index("divergence") < columns.index("bytes")
    reverse = [dataclasses.replace(t, metrics=dict(reversed(t.metrics.items()))) for t in example_trials()[:2]]
    columns, _ = trial_rows(reverse, example_space())
    assert columns.index("accuracy") < columns.index("bytes")


def test_rows_are_as_long_as_the_columns():
    columns, rows = trial_rows(example_trials(), example_space())
    assert {len(row) for row in rows} == {len(columns)}


class _Outside(HTMLParser):
    """Collects what a browser would fetch."""

    def __init__(self):
        super().__init__()
        self.fetched = []

    def handle_starttag(self, tag, attrs):
        self.fetched += [v for k, v in attrs if k in ("src", "href") and v and not v.startswith("data:")]


@pytest.mark.parametrize("with_plotly", [True, False])
def test_the_page_asks_nothing_of_the_network(front, tmp_path, monkeypatch, with_plotly):
    if not with_plotly:
        monkeypatch.setattr("paredown.search.report._html.find_spec", lambda name: None)
    write_report(tmp_path, front, example_trials(), space=example_space())
    text = (tmp_path / "front.html").read_text()
    parser = _Outside()
    parser.feed(text)
    assert parser.fetched == []
    assert ("Plotly.newPlot" in text) == with_plotly
    assert ('<img alt="quality' in text) != with_plotly
    for point in front.points:
        assert f"<td>{point.id}</td>" in text


def test_the_page_escapes_text_from_outside(front, tmp_path):
    write_report(tmp_path, front, example_trials(), space=example_space())
    nasty = with_point(front, 1, note="<script>alert(1)</script>")
    assert "<script>alert(1)" not in page(nasty, example_trials(), tmp_path / "front.png")


def test_the_table_has_what_matters_first(front, tmp_path):
    write_report(tmp_path, front, example_trials(), space=example_space())
    table = (tmp_path / "front.html").read_text().partition("<h2>Points</h2>")[2].partition("</table>")[0]
    heads = re.findall(r"<th(?: [^>]*)?>(.*?)</th>", table)
    assert heads[:7] == ["point", "kind", "accuracy", "size", "smaller", "latency", "faster"]
    (row,) = re.findall(r"<tr [^>]*><td>t4</td>.*?</tr>", table)  # uniform w4 a8 of 10288 weights and 900 bytes
    cells = re.findall(r"<td(?: [^>]*)?>(.*?)</td>", row)
    assert cells[1] == "uniform w4 a8"
    assert cells[3:5] == ["6,044 bytes", f"{(900 + 4 * 10288) / 6044:.3g}×"]


def test_labels_stay_inside_the_chart(front):
    x, y = chart.axis(front, "bytes"), chart.axis(front, "accuracy")
    dots = chart.dots(front, x, y)
    leftmost = min(dots, key=lambda d: d.x)
    rightmost = max(dots, key=lambda d: d.x)
    mixed = dataclasses.replace(leftmost, role="recommended", marks=("knee", "smallest"))
    assert _page_chart._side(mixed, "<b>knee, smallest</b> (t29)", dots, x) == "right"
    assert _page_chart._side(dataclasses.replace(mixed, x=rightmost.x), "<b>knee</b> (t1)", dots, x) == "left"
    assert _page_chart._side(dataclasses.replace(rightmost, role="uniform"), "w8 a8, w8, w6 a8", dots, x) == "left"


def test_what_fell_far_behind_is_drawn_at_the_edge_with_its_value(front, tmp_path):
    write_report(tmp_path, front, example_trials(), space=example_space())
    text = (tmp_path / "front.html").read_text().rsplit("Plotly.newPlot", 1)[1]
    worst = 100 * front["t6"].metrics["accuracy"].value  # uniform w2 a8
    assert f"w2 a8: {worst:.4g}" in text
    assert "triangle-down" in text


def test_settings_on_top_of_each_other_share_a_label(front):
    x, y = chart.axis(front, "bytes"), chart.axis(front, "accuracy")
    dots = [d for d in chart.dots(front, x, y) if d.role == "uniform"]
    twin = dataclasses.replace(dots[-1], id="t99", label="w8")
    group = [*dots, twin]
    texts = _page_chart._texts(group, [(d.x, d.y) for d in group], [False] * len(group), x, (60.0, 100.0))
    assert texts[-1] == ""
    assert texts[-2] == f"{dots[-1].label}, w8"


def test_one_cost_gives_no_buttons(front, tmp_path, monkeypatch):
    write_report(tmp_path, front, [], space=example_space())
    two = (tmp_path / "front.html").read_text()
    monkeypatch.setattr(chart, "cost_names", lambda front: ("bytes",))
    one = page(front, [], tmp_path / "front.png")
    assert '"updatemenus":[{' in re.sub(r"\s", "", two.rsplit("Plotly.newPlot", 1)[1])
    assert '"updatemenus":[{' not in re.sub(r"\s", "", one.rsplit("Plotly.newPlot", 1)[1])


def test_axes_and_units(front):
    size, quality = chart.axis(front, "bytes"), chart.axis(front, "accuracy")
    assert (size.title, size.log, size(2500)) == ("size [kB]", True, 2.5)
    assert (quality.title, quality.maximise, quality(0.5)) == ("accuracy [%]", True, 50.0)
    assert chart.quality_name(front) == "accuracy"
    assert chart.cost_names(front) == ("bytes", "latency_ms")
    with pytest.raises(KeyError):
        chart.axis(front, "energy_mj")


def test_modelled_figures_do_not_stand_beside_measured_ones(front):
    index = next(i for i, p in enumerate(front.points) if p.id == "t17")
    metrics = {**front["t17"].metrics, "latency_ms": Measurement(value=0.001, unit="ms", source="modelled")}
    mixed = with_point(front, index, metrics=metrics)
    x, y = chart.axis(mixed, "latency_ms"), chart.axis(mixed, "accuracy")
    assert "t17" not in [d.id for d in chart.dots(mixed, x, y)]
    assert "modelled" not in x.words
    alone = dataclasses.replace(mixed, points=(mixed["t17"],), picks={})
    assert "modelled" in chart.axis(alone, "latency_ms").words


def test_the_quality_axis_keeps_what_matters_and_leaves_out_the_collapsed(front):
    x, y = chart.axis(front, "bytes"), chart.axis(front, "accuracy")
    dots = chart.dots(front, x, y)
    low, high = chart.interesting(dots, y)
    inside = {d.id for d in dots if low <= d.y <= high}
    assert {d.id for d in dots if d.role != "uniform"} <= inside
    assert "t6" not in inside  # uniform 2 bits, 69 %
    assert "t4" in inside


def test_interesting_is_a_range_even_for_one_value(front):
    x, y = chart.axis(front, "bytes"), chart.axis(front, "accuracy")
    dot = dataclasses.replace(chart.dots(front, x, y)[0], y_low=None, y_high=None)
    low, high = chart.interesting([dot], y)
    assert low < dot.y < high


def test_roles_labels_and_limits(front):
    x, y = chart.axis(front, "bytes"), chart.axis(front, "accuracy")
    by_id = {d.id: d for d in chart.dots(front, x, y)}
    assert by_id["t0"].role == "original"
    assert (by_id["t4"].role, by_id["t4"].label) == ("uniform", "w4 a8")
    assert (by_id["t17"].role, by_id["t17"].marks) == ("recommended", ("knee",))
    assert (by_id["t23"].role, by_id["t23"].marks) == ("other", ())
    assert chart.limit_lines(front, x, y) == [("y", 88.0)]
    assert chart.uniform_label({"layers": {}}) == ""


def test_log_ticks():
    assert chart.log_ticks(3.0, 12.0) == [1, 2, 5, 10, 20, 50, 100, 200, 500]


def test_ties_in_latency_are_not_blown_up():
    assert chart.no_closer(0.99, 1.01) == pytest.approx((0.875, 1.125))
    assert chart.no_closer(1.0, 3.0) == (1.0, 3.0)
