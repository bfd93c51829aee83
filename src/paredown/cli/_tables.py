"""Tables of fronts, layers and checks, for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import _format as fmt

if TYPE_CHECKING:
    from rich.table import Table

    from ..search import Front, Point

COSTS = ("bytes", "latency_ms")
"""Costs with a column of their own, beside the ratio to the original."""

_WIDE_FROM = 120
"""Columns of a console on which intervals and ratios stand beside their figures."""

_FEW = 8
"""Most columns of a narrow table whose figures are not wrapped."""

_WHOLE_FROM_S = 10.0
"""Times from here on are shown in whole seconds."""

_SHOWN_AS = {"dominated": "early-stopped", "screened": "low-fidelity"}
"""Stored words, and the terms that people read for them."""

_KIND_STYLE = {"original": "bold", "uniform": "yellow", "mixed": "cyan"}


def table(*columns: str, right: Sequence[str] = (), title: str | None = None) -> Table:
    """Make an empty table in the style of all tables here; `right` names the columns of numbers."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def front_table(front: Front, *, everything: bool = False, width: int | None = None) -> Table:
    """Make a table with a row for each point. Size and latency stand beside their ratio to the original's.

    everything  also show points that are neither on the front nor baselines, and all other metrics
    width       of the console; on a narrow one ratios and intervals stand below their figures
    """
    from ..search.report import ratio_of

    points = shown_points(front, everything=everything)
    narrow = width is not None and width < _WIDE_FROM
    cells: dict[str, Callable[[Point], str]] = {"point": lambda p: p.id, "kind": _kind}
    for name in _plain_metrics(front, points, everything):
        split = _main_split(name, points)
        title = name + (f"{chr(10) if narrow else ' '}({split})" if split else "")
        cells[title] = lambda p, name=name, split=split: _cell(p, name, split, narrow)  # type: ignore[misc]
    for name, column, times in (("bytes", "size", "smaller"), ("latency_ms", "latency", "faster")):
        if not any(name in p.metrics for p in points):
            continue
        cost = lambda p, name=name: _cost(p, name, narrow)
        ratio = lambda p, name=name: found.text if (found := ratio_of(front, p, name)) is not None else fmt.DASH
        if narrow:
            cells[f"{column}\n{times}"] = lambda p, cost=cost, ratio=ratio: f"{cost(p)}\n{ratio(p)}"  # type: ignore[misc]
        else:
            cells |= {column: cost, times: ratio}
    if any("latency_predicted_ms" in p.metrics for p in points):
        cells["predicted"] = lambda p: _cell(p, "latency_predicted_ms", narrow=narrow).removesuffix(" predicted")
    if any("throughput_per_s" in p.metrics for p in points):
        cells["best throughput"] = _throughput
    if any("peak_memory_bytes" in p.metrics for p in points):
        cells["peak memory"] = lambda p: _cell(p, "peak_memory_bytes")
    if not narrow or not all(p.verified for p in points):
        cells["verified"] = lambda p: "yes" if p.verified else "no"
    cells["★"] = lambda p: "★" if p.recommended else ""
    if front.picks:
        cells["pick"] = lambda p: ", ".join(name for name, chosen in front.picks.items() if chosen == p.id)
    text = ("point", "kind", "verified", "★", "pick")
    made = table(*cells, right=[column for column in cells if column not in text])
    for shown in made.columns:  # where the figures leave room, the text wraps in their place
        shown.no_wrap = narrow and len(cells) <= _FEW and shown.header not in text
    for point in points:
        made.add_row(*(escape(cell(point)) for cell in cells.values()), style=_style(point))
    return made


def reasons_table(front: Front, *, everything: bool = False) -> Table | None:
    """Make a table of what each starred point beat, and why others have no star; None where there is nothing to say."""
    points = [p for p in shown_points(front, everything=everything) if p.note]
    if not points:
        return None
    made = table("point", "★", "why")
    for point in points:
        made.add_row(point.id, "★" if point.recommended else "", escape(point.note), style=_style(point))
    return made


def shown_points(front: Front, *, everything: bool) -> list[Point]:
    """List the points of the table: those of the front and the baselines, or all."""
    return [p for p in front.points if everything or p.on_front or p.kind != "mixed"]


def _plain_metrics(front: Front, points: Sequence[Point], everything: bool) -> list[str]:
    """List the metrics with one column: the objectives without size and latency; if `everything`, all others too."""
    names = [o.name for o in front.objectives] + [name for p in points for name in p.metrics if everything]
    known = {name for p in points for name in p.metrics}
    return [name for name in dict.fromkeys(names) if name not in COSTS and name in known]


def _main_split(name: str, points: Sequence[Point]) -> str | None:
    """Name the split of the column: the report split if any point has a figure of it."""
    splits = [p.metrics[name].split for p in points if name in p.metrics and p.metrics[name].split]
    return "report" if "report" in splits else (splits[0] if splits else None)


def _cell(point: Point, name: str, split: str | None = None, narrow: bool = False) -> str:
    """Format a cell. `split` is in the title of the column; a figure of another split names its own."""
    measured = point.metrics.get(name)
    if measured is None:
        return fmt.DASH
    marks: list[str] = [measured.source] if measured.source != "measured" else []
    if measured.split and measured.split != split and name not in COSTS:
        marks.append(measured.split)
    text = " ".join([fmt.measurement(name, measured), *marks])
    return text.replace(" [", "\n[") if narrow else text


def _cost(point: Point, name: str, narrow: bool) -> str:
    """Format a size or a latency; on a narrow console the interval of its ratio is enough."""
    return _cell(point, name, narrow=narrow).split("\n[")[0]


def _throughput(point: Point) -> str:
    """Format the throughput at the best batch, with the batch."""
    most, batch = (point.metrics.get(name) for name in ("throughput_per_s", "best_batch"))
    if most is None or batch is None:
        return fmt.DASH
    return f"{fmt.significant(most.value)}/s (batch {batch.value:.0f})"


def _kind(point: Point) -> str:
    from ..search.report import label_of

    return f"{point.kind} {label_of(point)}".rstrip()


def _style(point: Point) -> str | None:
    return _KIND_STYLE[point.kind] if point.recommended or point.kind != "mixed" else None


def front_notes(front: Front) -> list[str]:
    """Make the lines below the table: objectives, limits, and the meaning of the marks."""
    lines = ["objectives: " + ", ".join(f"{'max' if o.maximise else 'min'} {o.name}" for o in front.objectives)]
    if front.profile:
        lines[0] += f"; device: {front.profile}"
    bounds = [text for name, (low, high) in front.limits.items() if (text := bound(name, low, high))]
    if bounds:
        lines.append("limits: " + ", ".join(bounds))
    if front.nearest:
        lines.append(f"no point meets the limits; {front.nearest}")
    lines += front.size_lines
    lines += front.star_lines
    if any(p.recommended for p in front.points):
        lines.append(
            "★: verified, within the limits, and better than the baselines beyond noise; [ ]: 95 % intervals; costs in "
            "parentheses are the baseline's beside the point's"
        )
    return lines


def bound(name: str, low: float | None, high: float | None) -> str:
    """Format the limits of a metric: `accuracy ≥ 90.00 % and accuracy ≤ 95.00 %`; empty without limits."""
    parts = [
        f"{name} {sign} {fmt.value(name, bound)}" for sign, bound in (("≥", low), ("≤", high)) if bound is not None
    ]
    return " and ".join(parts)


_LAYER_COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "layers": ("layer", lambda v: ", ".join(v)),
    "label": ("got", str),
    "ran": ("ran in", str),
    "runs_as": ("runs as", lambda v: ", ".join(v) if isinstance(v, list) else str(v)),
    "weight_bytes": ("bytes", fmt.n_bytes),
    "bytes_saved": ("saves", fmt.n_bytes),
    "macs": ("MACs", fmt.count),
    "sensitivity": ("sensitivity", fmt.significant),
    "weight_error": ("weight error", fmt.significant),
}


def layers_table(layers: Sequence[Mapping[str, Any]]) -> Table:
    """Make a table with a row for each group of layers: spec, cost, saving and sensitivity."""
    keys = [key for key in _LAYER_COLUMNS if any(layer.get(key) is not None for layer in layers)]
    columns = [_LAYER_COLUMNS[key][0] for key in keys]
    made = table(*columns, right=[column for column in columns if column not in ("layer", "got", "runs as", "ran in")])
    for layer in layers:
        made.add_row(*(_layer_cell(key, layer.get(key)) for key in keys))
    return made


def _layer_cell(key: str, value: Any) -> str:
    return fmt.DASH if value is None else escape(_LAYER_COLUMNS[key][1](value))


def facts_table(facts: Mapping[str, Any]) -> Table:
    """Make a table of names and values. A mapping among the values gets rows of its own."""
    from rich.table import Table

    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in _spread(facts):
        made.add_row(escape(name), escape(value))
    return made


def _spread(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in facts.items():
        title = f"{prefix}{_SHOWN_AS.get(name, name).removesuffix('_s')}".replace("_", " ")
        if isinstance(value, Mapping):
            rows += _times(value, facts.get("spent_s")) if name == "seconds" else _spread(value, f"{title} ")
        elif name.endswith("_s") or name == "core_seconds":
            rows.append((title, fmt.seconds(value)))
        elif isinstance(value, float):
            rows.append((title, fmt.value(name, value)))
        elif isinstance(value, list | tuple) and value:
            rows.append((title, ("\n" if name == "notes" else ", ").join(map(str, value))))
        elif value is not None and value != []:
            rows.append((title, str(value)))
    return rows


def _times(seconds: Mapping[str, float], spent: float | None) -> list[tuple[str, str]]:
    """List where the time went, the longest first, with the share of the whole if that is known.

    Time that no purpose is charged with is `other`.
    """
    ranked = sorted(seconds.items(), key=lambda item: -item[1])
    if ranked and spent and (rest := spent - sum(seconds.values())) > 0:
        ranked.append(("other", rest))
    return [
        (
            f"time {name}",
            (f"{value:.1f} s" if value < _WHOLE_FROM_S else fmt.seconds(value))
            + (f"  {value / spent:.1%}" if spent else ""),
        )
        for name, value in ranked
    ]


def rows_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Make a table with a column for each key. A row with a false `ok` is red."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    made = table(*(key.replace("_", " ") for key in keys))
    for row in rows:
        made.add_row(*(escape(_plain(row.get(key))) for key in keys), style=None if row.get("ok", True) else "red")
    return made


def diff_table(found: Mapping[str, Any], *, everything: bool = False) -> Table:
    """Make a table with a row for each layer that differs (or all), and the claims below; no column is empty."""
    rows = [_diff_row(layer) for layer in found["layers"] if everything or not layer["same"]]
    for name, values in found["claims"].items():
        if everything or (values["a"] != values["b"] and not name.startswith("latency_p")):
            rows.append({"layer": name, **{side: _plain(values[side]) for side in ("a", "b")}})
    columns = list(dict.fromkeys(key for row in rows for key, value in row.items() if value)) or ["layer"]
    made = table(*columns, right=[column for column in columns if column != "layer"])
    for row in rows:
        made.add_row(*(escape(row.get(column, "")) for column in columns))
    return made


def _diff_row(layer: Mapping[str, Any]) -> dict[str, str]:
    row = {"layer": layer["layer"]}
    for side in ("a", "b"):
        one = layer[side]
        row[side] = one["label"] if one else "not there"
        row[f"{side} bytes"] = _plain(one["bytes"]) if one else ""
        row[f"{side} stored"] = ", ".join(one["stored"] or ()) if one else ""
    error = layer["weight_error"]
    return {**row, "weight error": "" if error is None else f"{error:.2e}"}


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return fmt.significant(value, 5) if isinstance(value, float) else str(value)


def escape(text: str) -> str:
    """Escape rich's markup, so that `[2, 3]` is shown as it is."""
    from rich.markup import escape

    return escape(text)
