"""The front as one HTML file: a chart to hover over (where plotly is installed), and the points as a table.

plotly is imported here and nowhere else, and its script is put into the page, which so works offline.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _chart as chart
from ._chart import Axis, Dot, Role
from ._picture import COLOURS, GREY, GRID, INK, LIMIT
from ._trial import Trial

if TYPE_CHECKING:
    from ._result import Front, Point

_MARKERS: dict[Role, str] = {"original": "star", "uniform": "square", "recommended": "circle", "other": "circle-open"}
_SIZES: dict[Role, int] = {"original": 15, "uniform": 9, "recommended": 11, "other": 10}
_HEIGHT = 560

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; }
body { margin: 2rem auto; max-width: 78rem; padding: 0 1.5rem; }
h1 { font-size: 1.4rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .3rem 0; color: #555; } .wide { overflow-x: auto; } img { max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.kind { white-space: nowrap; }
th, td { padding: .35rem .8rem; text-align: right; border-bottom: 1px solid #e6e8eb; }
th { color: #555; font-weight: 600; } th:first-child, td:first-child, td.text, th.text { text-align: left; }
td.remarks { white-space: normal; min-width: 16rem; }
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
            "<h2>What each point does</h2>",
            *(_config(point) for point in front.points if point.kind != "original"),
            "</body></html>",
            "",
        ]
    )


def _facts(front: Front) -> list[str]:
    lines = ["Objectives: " + ", ".join(f"{'max' if o.maximise else 'min'} {o.name}" for o in front.objectives) + "."]
    bounds = [
        f"{name} {sign} {bound:g}"
        for name, limit in front.limits.items()
        for sign, bound in zip(("≥", "≤"), limit, strict=True)
        if bound is not None
    ]
    if bounds:
        lines.append(f"Limits: {', '.join(bounds)}.")
    lines.append(
        "Points were chosen on the search split. Verified ones were exported, loaded again in a fresh process and "
        "measured there, on the report split; bars and brackets are 95 % intervals. Recommended: verified, within the "
        "limits, and better than uniform settings beyond noise."
    )
    return lines


def _chart(front: Front, trials: Sequence[Trial], picture: Path) -> str:
    if find_spec("plotly") is None:
        data = base64.b64encode(picture.read_bytes()).decode("ascii")
        return (
            f'<img alt="quality against cost" src="data:image/png;base64,{data}">'
            "<p>For a chart to hover over: pip install 'paredown[plotly]', then paredown resume.</p>"
        )
    return _interactive(front, trials)


def _interactive(front: Front, trials: Sequence[Trial]) -> str:
    """All costs are in the figure; the buttons choose which one the x axis shows."""
    import plotly.graph_objects as go  # type: ignore[import-untyped]

    y = chart.axis(front, chart.quality_name(front))
    axes = [chart.axis(front, name) for name in chart.cost_names(front)]
    figure = go.Figure()
    owners: list[int] = []
    for i, x in enumerate(axes):
        traces = _traces(front, trials, x, y, visible=i == 0)
        figure.add_traces(traces)
        owners += [i] * len(traces)
    low, high = chart.interesting(chart.dots(front, axes[0], y), y)
    split = chart.split_of(front, y.name)
    views = [_view(front, x, y) for x in axes]
    figure.update_layout(
        height=_HEIGHT,
        margin={"l": 70, "r": 20, "t": 60, "b": 60},
        plot_bgcolor="white",
        paper_bgcolor="white",
        font={"family": "system-ui, sans-serif", "color": INK, "size": 13},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"align": "left"},
        xaxis={**_LINES, **views[0]["xaxis"]},
        yaxis={**_LINES, "title": {"text": f"{y.title}{f', {split} split' if split else ''}"}, "range": [low, high]},
        shapes=views[0]["shapes"],
        updatemenus=_buttons(axes, views, owners) if len(axes) > 1 else [],
    )
    text: str = figure.to_html(
        full_html=False, include_plotlyjs=True, config={"displaylogo": False, "responsive": True}
    )
    return text


_LINES: dict[str, Any] = {"gridcolor": GRID, "zeroline": False, "linecolor": "#b5b9c0", "ticks": "outside"}


def _view(front: Front, x: Axis, y: Axis) -> dict[str, Any]:
    """What of the layout depends on which cost is shown: the x axis, and the limits as lines."""
    axis: dict[str, Any] = {"title": {"text": x.title}, "type": "log" if x.log else "linear", "autorange": True}
    if x.log:
        values = [dot.x for dot in chart.dots(front, x, y)]
        ticks = chart.log_ticks(min(values), max(values))
        axis |= {"tickmode": "array", "tickvals": ticks, "ticktext": [f"{tick:,.6g}" for tick in ticks]}
    else:
        axis |= {"tickmode": "auto"}
    dashes = {"type": "line", "line": {"color": LIMIT, "width": 1.2, "dash": "dash"}}
    shapes = [
        {**dashes, f"{letter}0": at, f"{letter}1": at, f"{other}0": 0, f"{other}1": 1, f"{other}ref": f"{other} domain"}
        for letter, at in chart.limit_lines(front, x, y)
        for other in ("y" if letter == "x" else "x")
    ]
    return {"xaxis": axis, "shapes": shapes}


def _buttons(axes: Sequence[Axis], views: Sequence[dict[str, Any]], owners: Sequence[int]) -> list[dict[str, Any]]:
    buttons = [
        {
            "label": x.words,
            "method": "update",
            "args": [
                {"visible": [owner == i for owner in owners]},
                {"xaxis": {**_LINES, **view["xaxis"]}, "shapes": view["shapes"]},
            ],
        }
        for i, (x, view) in enumerate(zip(axes, views, strict=True))
    ]
    place = {"x": 1, "xanchor": "right", "y": -0.1, "yanchor": "top"}
    return [{"type": "buttons", "direction": "right", "buttons": buttons, **place}]


def _traces(front: Front, trials: Sequence[Trial], x: Axis, y: Axis, *, visible: bool) -> list[Any]:
    import plotly.graph_objects as go

    traces: list[Any] = []
    if seen := chart.cloud(trials, x, y):
        traces.append(
            go.Scatter(
                x=[a for a, _ in seen], y=[b for _, b in seen], mode="markers", name="every trial (search split)",
                marker={"size": 4, "color": GREY, "opacity": 0.4}, hoverinfo="skip", visible=visible,
            )
        )  # fmt: skip
    dots = chart.dots(front, x, y)
    for role in ("uniform", "other", "recommended", "original"):
        group = [d for d in dots if d.role == role]
        if not group:
            continue
        traces.append(
            go.Scatter(
                x=[d.x for d in group], y=[d.y for d in group],
                error_x=_errors([(d.x, d.x_low, d.x_high) for d in group]),
                error_y=_errors([(d.y, d.y_low, d.y_high) for d in group]),
                mode="markers+text", name=chart.WORDS[role], visible=visible,
                text=[_label(d) for d in group], textfont={"size": 11},
                textposition="bottom right" if role == "uniform" else "top left",
                marker=_marker(role),
                hovertext=[_hover(front[d.id]) for d in group], hoverinfo="text",
            )
        )  # fmt: skip
    return traces


def _marker(role: Role) -> dict[str, Any]:
    edge = COLOURS[role] if role == "other" else "white"
    return {
        "symbol": _MARKERS[role],
        "size": _SIZES[role],
        "color": COLOURS[role],
        "line": {"width": 1.5, "color": edge},
    }


def _label(dot: Dot) -> str:
    if dot.marks:
        return f"<b>{html.escape(', '.join(dot.marks))}</b>"
    return html.escape(dot.label) if dot.role == "uniform" else ""


def _errors(triples: Sequence[tuple[float, float | None, float | None]]) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, high - value) if high is not None else 0.0 for value, _, high in triples],
        "arrayminus": [max(0.0, value - low) if low is not None else 0.0 for value, low, _ in triples],
        "thickness": 1,
        "width": 3,
    }


def _hover(point: Point) -> str:
    lines = [f"<b>{html.escape(point.id)}</b> {point.kind}{', recommended' if point.recommended else ''}"]
    lines += [f"{html.escape(name)}: {html.escape(_value(point, name))}" for name in point.metrics]
    if point.note:
        lines.append(html.escape(point.note))
    return "<br>".join(lines)


def _value(point: Point, name: str) -> str:
    measured = point.metrics[name]
    scale, digits, unit = 1.0, ",.4g", measured.unit
    if name == "accuracy" or measured.unit == "fraction":
        scale, digits, unit = 100.0, ".2f", "%"
    elif float(measured.value).is_integer() and measured.low is None:
        digits = ",.0f"
    text = f"{scale * measured.value:{digits}} {unit}".rstrip()
    if measured.low is not None and measured.high is not None:
        text += f" [{scale * measured.low:{digits}}, {scale * measured.high:{digits}}]"
    return text if measured.source == "measured" else f"{text} ({measured.source})"


def _table(front: Front) -> str:
    names = list(dict.fromkeys(name for p in front.points for name in p.metrics))
    marks = {p.id: [name for name, chosen in front.picks.items() if chosen == p.id] for p in front.points}
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    rows = []
    for p in front.points:
        what = f"uniform {chart.uniform_label(p.config)}" if p.kind == "uniform" else p.kind
        cells = "".join(f"<td>{html.escape(_value(p, name)) if name in p.metrics else '–'}</td>" for name in names)
        remark = "; ".join(filter(None, [", ".join(marks[p.id]), p.note]))
        rows.append(
            f'<tr class="{chart.role_of(p)}"><td>{html.escape(p.id)}</td><td class="text kind">{html.escape(what)}</td>'
            f"{cells}"
            f"<td>{'yes' if p.verified else 'no'}</td><td>{'★' if p.recommended else ''}</td>"
            f'<td class="text remarks">{html.escape(remark)}</td></tr>'
        )
    return (
        f'<table><thead><tr><th>point</th><th class="text">kind</th>{head}<th>verified</th><th>recommended</th>'
        f'<th class="text">remarks</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )


def _config(point: Point) -> str:
    from ..compressors import LayerSpec

    layers = point.config.get("layers", {})
    rows = "".join(
        f'<tr><td>{html.escape(fqn)}</td><td class="text">{html.escape(LayerSpec.from_dict(spec).label())}</td></tr>'
        for fqn, spec in layers.items()
    )
    summary = f"<summary>{html.escape(point.id)} ({point.kind})</summary>"
    return f"<details>{summary}<table><tbody>{rows}</tbody></table></details>"
