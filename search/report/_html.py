"""The front as one HTML file that works offline: a chart to hover over (where plotly is installed), and tables."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..values import Trial
from . import _axes as chart
from ._ratios import ratio_of

if TYPE_CHECKING:
    from ..front import Front, Point

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; }
body { margin: 2rem auto; max-width: 90rem; padding: 0 1.5rem; }
h1 { font-size: 1.4rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .3rem 0; color: #555; } .wide { overflow-x: auto; } img { max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .35rem .5rem; text-align: right; border-bottom: 1px solid #e6e8eb; }
th { color: #555; font-weight: 600; } th:first-child, td:first-child, td.text, th.text { text-align: left; }
td.remarks { white-space: normal; min-width: 12rem; }
tr.recommended td { background: #eef5fa; } tr.original td { font-weight: 600; }
details { margin: .2rem 0; } summary { cursor: pointer; } code { font-size: .85rem; }
"""


def page(front: Front, trials: Sequence[Trial], picture: Path) -> str:
    """The whole page. Every text from outside is escaped."""
    title = f"paredown: {front.run.name}"
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>',
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>{html.escape(title)}</h1>",
            *(f"<p>{html.escape(line)}</p>" for line in _facts(front)),
            f'<div class="wide">{_chart(front, trials, picture)}</div>',
            "<h2>Points</h2>",
            f'<div class="wide">{_table(front)}</div>',
            _every_metric(front),
            "<h2>What each point does</h2>",
            *(_config(point) for point in front.points if point.kind != "original"),
            "</body></html>",
            "",
        ]
    )


def _facts(front: Front) -> list[str]:
    lines = ["Objectives: " + ", ".join(f"{'max' if o.maximise else 'min'} {o.name}" for o in front.objectives) + "."]
    bounds = [
        f"{name} {sign} {chart.bound_of(front, name, bound)}"
        for name, limit in front.limits.items()
        for sign, bound in zip(("≥", "≤"), limit, strict=True)
        if bound is not None
    ]
    if bounds:
        lines.append(f"Limits: {', '.join(bounds)}.")
    lines += front.size_lines
    lines += front.star_lines
    lines.append(
        "Points were chosen on the search split. Verified ones were exported, loaded again in a fresh process and "
        "measured there, on the report split; bars and brackets are 95 % intervals. Recommended (★): verified, within "
        "the limits, better beyond noise than the best baseline that costs no more, and no worse than one within 10 % "
        "more cost. Costs in parentheses are the baseline's beside the point's."
    )
    return lines


def _chart(front: Front, trials: Sequence[Trial], picture: Path) -> str:
    if find_spec("plotly") is None:
        data = base64.b64encode(picture.read_bytes()).decode("ascii")
        return (
            f'<img alt="quality against cost" src="data:image/png;base64,{data}">'
            "<p>For a chart to hover over: pip install 'paredown[plotly]', then paredown resume.</p>"
        )
    from ._html_chart import interactive

    return interactive(front, trials)


def _table(front: Front) -> str:
    """Table of the points: objectives, size and latency with their ratio to the original's."""
    points = [p for p in front.points if p.on_front or p.kind != "mixed"]
    known = {name for p in points for name in p.metrics}
    columns: dict[str, Callable[[Point], str]] = {}
    for name in [o.name for o in front.objectives if o.name not in ("bytes", "latency_ms")]:
        if name in known:
            columns[name] = lambda p, name=name: _value(p, name)  # type: ignore[misc]
    for name, title, times in (("bytes", "size", "smaller"), ("latency_ms", "latency", "faster")):
        if name in known:
            columns[title] = lambda p, name=name: _value(p, name)  # type: ignore[misc]
            columns[times] = lambda p, name=name: _times(front, p, name)  # type: ignore[misc]
    if "latency_predicted_ms" in known:
        columns["predicted"] = lambda p: _value(p, "latency_predicted_ms")
    further = {"throughput_per_s": "best throughput", "best_batch": "at batch", "peak_memory_bytes": "peak memory"}
    for name, title in further.items():
        if name in known:  # measured of verified points, where the task asks for it
            columns[title] = lambda p, name=name: _value(p, name)  # type: ignore[misc]
    marks = {p.id: [name for name, chosen in front.picks.items() if chosen == p.id] for p in points}
    rows = []
    for p in points:
        cells = "".join(f"<td>{html.escape(cell(p))}</td>" for cell in columns.values())
        remark = "; ".join(filter(None, [", ".join(marks[p.id]), p.note]))
        rows.append(
            f'<tr class="{chart.role_of(p)}"><td>{html.escape(p.id)}</td><td class="text">{_kind(p)}</td>{cells}'
            f"<td>{'yes' if p.verified else 'no'}</td><td>{'★' if p.recommended else ''}</td>"
            f'<td class="text remarks">{html.escape(remark)}</td></tr>'
        )
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    return (
        f'<table><thead><tr><th>point</th><th class="text">kind</th>{head}<th>verified</th><th>recommended</th>'
        f'<th class="text">remarks</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )


def _every_metric(front: Front) -> str:
    names = list(dict.fromkeys([o.name for o in front.objectives] + [name for p in front.points for name in p.metrics]))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    rows = "".join(
        f'<tr class="{chart.role_of(p)}"><td>{html.escape(p.id)}</td><td class="text">{_kind(p)}</td>'
        + "".join(f"<td>{html.escape(_value(p, name))}</td>" for name in names)
        + "</tr>"
        for p in front.points
    )
    table = (
        f'<table><thead><tr><th>point</th><th class="text">kind</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )
    return f'<details><summary>Every metric</summary><div class="wide">{table}</div></details>'


def _value(point: Point, name: str) -> str:
    return chart.value_of(point, name) if name in point.metrics else "–"


def _times(front: Front, point: Point, name: str) -> str:
    ratio = ratio_of(front, point, name)
    return "–" if ratio is None else ratio.text


def _kind(point: Point) -> str:
    return html.escape(f"{point.kind} {chart.label_of(point)}".rstrip())


def _config(point: Point) -> str:
    from ...compressors import LayerSpec

    layers = point.config.get("layers", {})
    rows = "".join(
        f'<tr><td>{html.escape(fqn)}</td><td class="text">{html.escape(LayerSpec.from_dict(spec).label())}</td></tr>'
        for fqn, spec in layers.items()
    )
    summary = f"<summary>{html.escape(point.id)} ({point.kind})</summary>"
    return f"<details>{summary}<table><tbody>{rows}</tbody></table></details>"
