"""The interactive chart of the page. plotly is imported here and nowhere else; its script is put into the page."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..values import Trial
from . import _axes as chart
from ._axes import Axis, Dot, Role, value_of
from ._png import COLOURS, GREY, GRID, INK, LIMIT

if TYPE_CHECKING:
    from ..front import Front, Point

_MARKERS: dict[Role, str] = {"original": "star", "uniform": "square", "recommended": "circle", "other": "circle-open"}
_SIZES: dict[Role, int] = {"original": 15, "uniform": 9, "recommended": 11, "other": 10}
_HEIGHT = 620


def interactive(front: Front, trials: Sequence[Trial]) -> str:
    """The chart as HTML. It holds all costs; buttons choose the one on the x axis."""
    import plotly.graph_objects as go  # type: ignore[import-untyped]

    y = chart.axis(front, chart.quality_name(front))
    axes = [chart.axis(front, name) for name in chart.cost_names(front)]
    bounds = chart.interesting(chart.dots(front, axes[0], y), y)
    figure = go.Figure()
    owners: list[int] = []
    for i, x in enumerate(axes):
        traces = _traces(front, trials, x, y, bounds, visible=i == 0)
        figure.add_traces(traces)
        owners += [i] * len(traces)
    split = chart.split_of(front, y.name)
    views = [_view(front, x, y) for x in axes]
    figure.update_layout(
        height=_HEIGHT,
        margin={"l": 70, "r": 20, "t": 84, "b": 110},
        plot_bgcolor="white",
        paper_bgcolor="white",
        font={"family": "system-ui, sans-serif", "color": INK, "size": 13},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"align": "left"},
        xaxis={**_LINES, **views[0]["xaxis"]},
        yaxis={**_LINES, "title": {"text": f"{y.title}{f', {split} split' if split else ''}"}, "range": list(bounds)},
        shapes=views[0]["shapes"],
        updatemenus=_buttons(axes, views, owners) if len(axes) > 1 else [],
    )
    text: str = figure.to_html(
        full_html=False, include_plotlyjs=True, config={"displaylogo": False, "responsive": True}
    )
    return text


_LINES: dict[str, Any] = {"gridcolor": GRID, "zeroline": False, "linecolor": "#b5b9c0", "ticks": "outside"}


def _view(front: Front, x: Axis, y: Axis) -> dict[str, Any]:
    """The part of the layout that changes with the cost shown: the x axis, and the limits as lines."""
    axis: dict[str, Any] = {"title": {"text": x.title}, "type": "log" if x.log else "linear", "autorange": True}
    if x.log:
        values = [dot.x for dot in chart.dots(front, x, y)]
        ticks = chart.log_ticks(min(values), max(values))
        axis |= {"tickmode": "array", "tickvals": ticks, "ticktext": [f"{tick:,.6g}" for tick in ticks]}
    else:
        axis |= {"tickmode": "auto"}
        if x.name == "latency_ms":
            reach = [v for dot in chart.dots(front, x, y) for v in (dot.x, dot.x_low, dot.x_high) if v is not None]
            margin = 0.06 * (max(reach) - min(reach))
            axis |= {"autorange": False, "range": list(chart.no_closer(min(reach) - margin, max(reach) + margin))}
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
    place = {"x": 0, "xanchor": "left", "y": -0.16, "yanchor": "top"}  # below the axis' title, however narrow the page
    return [{"type": "buttons", "direction": "right", "buttons": buttons, **place}]


def _traces(
    front: Front, trials: Sequence[Trial], x: Axis, y: Axis, bounds: tuple[float, float], *, visible: bool
) -> list[Any]:
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
    edge = bounds[0] + 0.03 * (bounds[1] - bounds[0])
    for role in ("uniform", "other", "recommended", "original"):
        # points far behind are drawn at the edge with their value; last, because the legend shows the first marker
        group = sorted((d for d in dots if d.role == role), key=lambda d: d.y < bounds[0])
        if not group:
            continue
        below = [d.y < bounds[0] for d in group]
        shown = [(d.x, max(d.y, edge)) for d in group]
        texts = _texts(group, shown, below, x, bounds)
        traces.append(
            go.Scatter(
                x=[a for a, _ in shown], y=[b for _, b in shown],
                error_x=_errors([(d.x, d.x_low, d.x_high) for d in group]),
                error_y=_errors([(0, 0, 0) if low else (d.y, d.y_low, d.y_high)
                                 for d, low in zip(group, below, strict=True)]),
                mode="markers+text", name=chart.WORDS[role], visible=visible,
                text=texts, textfont={"size": 11},
                textposition=[f"{'bottom' if role == 'uniform' and not low else 'top'} {_side(d, text, dots, x)}"
                              for d, low, text in zip(group, below, texts, strict=True)],
                marker=_marker(role, below),
                hovertext=[_hover(front[d.id]) for d in group], hoverinfo="text",
            )
        )  # fmt: skip
    return traces


_WIDTH, _LETTER = 800, 6.0
"""Assumed widths of the chart and of a letter of a label, in pixels."""


def _side(dot: Dot, text: str, dots: Sequence[Dot], x: Axis) -> str:
    """The side of the dot for its label: left where there is room; for a uniform setting, right."""
    across = _across(dot.x, [d.x for d in dots], x)
    wide = _LETTER * len(re.sub("<.*?>", "", text)) / _WIDTH
    if dot.role == "uniform":
        return "right" if across + wide < 1 else "left"
    return "left" if across - wide > 0 else "right"


def _across(value: float, among: Sequence[float], x: Axis) -> float:
    """Position on the axis: 0 is its left end, 1 its right end."""
    low, high, at = (math.log(v) if x.log else v for v in (min(among), max(among), value))
    return 0.07 + 0.86 * (at - low) / ((high - low) or 1.0)


def _texts(
    group: Sequence[Dot],
    shown: Sequence[tuple[float, float]],
    below: Sequence[bool],
    x: Axis,
    bounds: tuple[float, float],
) -> list[str]:
    """Labels of the dots. Settings that lie on top of each other (`w4` and `w4 a8`) share the first one's label."""
    texts: list[str] = []
    for i, (dot, low) in enumerate(zip(group, below, strict=True)):
        text = _label(dot, low)
        for j in range(i):
            near_x = abs(_across(shown[i][0], [d.x for d in group], x) - _across(shown[j][0], [d.x for d in group], x))
            near_y = abs(shown[i][1] - shown[j][1]) / (bounds[1] - bounds[0])
            if text and texts[j] and dot.role == "uniform" and near_x < 0.03 and near_y < 0.03:
                texts[j], text = f"{texts[j]}, {text}", ""
        texts.append(text)
    return texts


def _marker(role: Role, below: Sequence[bool]) -> dict[str, Any]:
    edge = COLOURS[role] if role == "other" else "white"
    return {
        "symbol": ["triangle-down" if low else _MARKERS[role] for low in below],
        "size": _SIZES[role],
        "color": COLOURS[role],
        "line": {"width": 1.5, "color": edge},
    }


def _label(dot: Dot, below: bool) -> str:
    if dot.marks:
        return f"<b>{html.escape(', '.join(dot.marks))}</b> ({html.escape(dot.id)})"
    if dot.role != "uniform":
        return ""
    return html.escape(f"{dot.label}: {dot.y:.4g}" if below else dot.label)


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
    names = sorted(point.metrics, key=lambda name: name in chart.COSTS)
    lines += [f"{html.escape(name)}: {html.escape(value_of(point, name))}" for name in names]
    if point.note:
        lines.append(html.escape(point.note))
    return "<br>".join(lines)
