"""The front as a PNG: quality against each cost, with intervals. matplotlib is imported here and nowhere else.

The object interface only (`Figure` on an Agg canvas): no pyplot, so no global state and no display.
Colours are Okabe and Ito's (2008), which the colour-blind can tell apart; every role has its own marker too.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from ..values import Trial
from . import _axes as chart
from ._axes import Axis, Dot, Role

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..front import Front

INK, GREY, GRID, LIMIT = "#222222", "#8a8f98", "#e6e8eb", "#D55E00"
COLOURS: dict[Role, str] = {"original": "#000000", "uniform": "#E69F00", "recommended": "#0072B2", "other": "#56B4E9"}
_MARKERS: dict[Role, str] = {"original": "*", "uniform": "s", "recommended": "o", "other": "o"}
_SIZES: dict[Role, float] = {"original": 190, "uniform": 52, "recommended": 64, "other": 44}
_CHARACTERS_AN_INCH = 14
"""Characters of the small print that fit."""
_PANEL_INCHES, _HEIGHT_INCHES, _DPI = 7.2, 5.4, 144


def load() -> None:
    """Import matplotlib's drawing ahead of its first use; that takes a quarter of a second."""
    for module in ("matplotlib.figure", "matplotlib.backends.backend_agg"):
        importlib.import_module(module)


def draw(front: Front, trials: Sequence[Trial], path: Path) -> Path:
    """Write the picture to `path`, one panel for each of at most three costs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    costs = chart.cost_names(front)[:3]
    figure = Figure(
        figsize=(_PANEL_INCHES * max(1, len(costs)), _HEIGHT_INCHES), dpi=_DPI, facecolor="white", layout="constrained"
    )
    FigureCanvasAgg(figure)
    panels: list[Axes] = figure.subplots(1, max(1, len(costs)), squeeze=False, sharey=True)[0].tolist()
    y = chart.axis(front, chart.quality_name(front))
    for panel, cost in zip(panels, costs, strict=False):
        _panel(panel, front, trials, chart.axis(front, cost), y)
    split = chart.split_of(front, y.name)
    panels[0].set_ylabel(f"{y.title}{f', {split} split' if split else ''}", color=INK, fontsize=11)
    _legend(figure, panels)
    if front.lost_line:
        width = round(_CHARACTERS_AN_INCH * figure.get_figwidth())
        figure.supxlabel("\n".join(wrap(front.lost_line, width)), color=INK, fontsize=9)
    figure.draw_without_rendering()  # makes the layout, by which the labels are placed
    figure.set_layout_engine("none")  # and keeps it: it costs as much as the drawing
    for panel, cost in zip(panels, costs, strict=False):
        _labels(panel, chart.dots(front, chart.axis(front, cost), y))
    figure.savefig(path, dpi=_DPI, metadata={"Software": "paredown"}, pil_kwargs={"compress_level": 3})
    return path


def _panel(panel: Axes, front: Front, trials: Sequence[Trial], x: Axis, y: Axis) -> None:
    dots = chart.dots(front, x, y)
    low, high = chart.interesting(dots, y)
    _frame(panel, x)
    seen = [(a, b) for a, b in chart.cloud(trials, x, y) if low <= b <= high]
    if seen:
        panel.scatter(
            [a for a, _ in seen],
            [b for _, b in seen],
            s=9,
            color=GREY,
            alpha=0.35,
            linewidths=0,
            label="every trial (search split)",
            zorder=1,
        )
    _staircase(panel, [d for d in dots if d.role == "recommended"], y)
    for role in ("uniform", "other", "recommended", "original"):
        group = [d for d in dots if d.role == role]
        if group:
            _marks(panel, group, role, (low, high))
    panel.set_ylim(low, high)
    if x.name == "latency_ms" and not x.log:
        panel.set_xlim(*chart.no_closer(*panel.get_xlim()))
    for name, bound in chart.limit_lines(front, x, y):
        (panel.axvline if name == "x" else panel.axhline)(
            bound, color=LIMIT, lw=1.1, ls=(0, (5, 3)), zorder=1.5, label="limit"
        )


def _frame(panel: Axes, x: Axis) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    panel.set_xlabel(x.title, color=INK, fontsize=11)
    panel.grid(True, color=GRID, linewidth=0.9)
    panel.set_axisbelow(True)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        panel.spines[side].set_color("#b5b9c0")
    panel.tick_params(colors="#444444", labelsize=10, length=3)
    panel.margins(x=0.09)
    if x.log:
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())


def _staircase(panel: Axes, dots: Sequence[Dot], y: Axis) -> None:
    """Draw the edge of the recommended points as steps."""
    sign = 1.0 if y.maximise else -1.0
    edge: list[Dot] = []
    for dot in sorted(dots, key=lambda d: (d.x, -sign * d.y)):
        if not edge or sign * dot.y > sign * edge[-1].y:
            edge.append(dot)
    if len(edge) > 1:
        panel.step(
            [d.x for d in edge],
            [d.y for d in edge],
            where="post",
            color=COLOURS["recommended"],
            lw=1.3,
            alpha=0.45,
            zorder=2,
        )


def _marks(panel: Axes, dots: Sequence[Dot], role: Role, bounds: tuple[float, float]) -> None:
    low, high = bounds
    colour = COLOURS[role]
    inside = [d for d in dots if low <= d.y <= high]
    if inside:
        panel.errorbar(
            [d.x for d in inside],
            [d.y for d in inside],
            xerr=_errors([(d.x, d.x_low, d.x_high) for d in inside]),
            yerr=_errors([(d.y, d.y_low, d.y_high) for d in inside]),
            fmt="none",
            ecolor=colour,
            elinewidth=1.1,
            capsize=2.5,
            alpha=0.45,
            zorder=2.5,
        )
    hollow = role == "other"
    style: dict[str, Any] = {
        "facecolors": "white" if hollow else colour,
        "edgecolors": colour if hollow else "white",
        "linewidths": 1.6 if hollow else 0.9,
    }
    panel.scatter(
        [d.x for d in inside],
        [d.y for d in inside],
        s=_SIZES[role],
        marker=_MARKERS[role],
        label=chart.WORDS[role],
        zorder=5 if role == "original" else 4,
        **style,
    )
    for dot in dots:
        if not low <= dot.y <= high:  # drawn at the edge
            bottom = dot.y < low
            edge = low + (0.035 if bottom else 0.965) * (high - low)
            panel.scatter(
                [dot.x], [edge], s=_SIZES[role], marker="v" if bottom else "^", color=colour, zorder=4, linewidths=0
            )


def _errors(triples: Sequence[tuple[float, float | None, float | None]]) -> list[list[float]]:
    """Lengths of the interval below and above each value, in matplotlib's shape (2, n)."""
    return [
        [max(0.0, value - low) if low is not None else 0.0 for value, low, _ in triples],
        [max(0.0, high - value) if high is not None else 0.0 for value, _, high in triples],
    ]


def _legend(figure: Any, panels: Sequence[Axes]) -> None:
    """One legend above all panels, each role once."""
    handles: dict[str, Any] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    order = [w for w in (*chart.WORDS.values(), "every trial (search split)", "limit") if w in handles]
    if order:
        figure.legend(
            [handles[w] for w in order],
            order,
            loc="outside upper left",
            ncols=len(order),
            frameon=False,
            fontsize=10,
            handletextpad=0.3,
        )


def _labels(panel: Axes, dots: Sequence[Dot]) -> None:
    """Label the picks, the original and the uniform settings, each where it covers least."""
    low, high = panel.get_ylim()
    wanted = sorted(
        (d for d in dots if d.marks or d.role in ("original", "uniform")),
        key=lambda d: (not d.marks, d.role != "original", d.x),
    )

    def to_pixels(x: float, y: float) -> tuple[float, float]:
        across, up = panel.transData.transform((x, y))
        return float(across), float(up)

    taken = [_around(*to_pixels(d.x, min(max(d.y, low), high)), 9, 9) for d in dots]
    for dot in wanted:
        outside = not low <= dot.y <= high
        at = to_pixels(dot.x, low + (0.035 if dot.y < low else 0.965) * (high - low) if outside else dot.y)
        text = _label(dot, outside)
        _place(panel, dot, text, at, taken)


def _label(dot: Dot, outside: bool) -> str:
    if dot.marks:
        return f"{', '.join(dot.marks)} ({dot.id})"
    text = "original" if dot.role == "original" else dot.label
    return f"{text}: {dot.y:.4g}" if outside else text


Box = tuple[float, float, float, float]
"""left, bottom, right, top, in pixels."""


def _place(panel: Axes, dot: Dot, text: str, at: tuple[float, float], taken: list[Box]) -> None:
    """Draw a label at the place around its dot that overlaps least with the others; nearer places are preferred."""
    size = 10.0 if dot.marks else 9.0
    half_width, half_height = 0.30 * size * len(text) * _DPI / 72, 0.75 * size * _DPI / 72
    frame = panel.get_window_extent()
    best: tuple[float, float, float, Box] | None = None
    for ring, distance in enumerate((1.0, 1.9, 3.0, 4.4)):
        for dx, dy in ((1, 0.9), (1, -0.9), (-1, 0.9), (-1, -0.9), (0, 1.25), (0, -1.25), (1, 0), (-1, 0)):
            x = at[0] + dx * (half_width + 9 + 11 * (distance - 1))
            y = at[1] + dy * (half_height + 4) * distance
            box = _around(x, y, half_width, half_height)
            cost = sum(_overlap(box, other) for other in taken) + 60.0 * ring
            cost += 50.0 * _outside(box, (frame.x0, frame.y0, frame.x1, frame.y1))
            if best is None or cost < best[0]:
                best = (cost, x, y, box)
    if best is None:  # cannot be: there are places to try
        return
    _, x, y, box = best
    taken.append(box)
    strong = bool(dot.marks)
    panel.annotate(
        text,
        xy=at,
        xycoords="figure pixels",
        xytext=((x - at[0]) * 72 / _DPI, (y - at[1]) * 72 / _DPI),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=size,
        fontweight="bold" if strong else "normal",
        color=COLOURS["recommended"] if strong else ("#8a5a00" if dot.role == "uniform" else INK),
        arrowprops={"arrowstyle": "-", "color": "#9aa0a8", "lw": 0.8, "shrinkA": 0, "shrinkB": 4},
        zorder=6,
        bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
        annotation_clip=False,
    )


def _around(x: float, y: float, half_width: float, half_height: float) -> Box:
    return x - half_width, y - half_height, x + half_width, y + half_height


def _overlap(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def _outside(box: Box, frame: Box) -> float:
    """Number of pixels by which the box leaves the frame."""
    return sum(max(0.0, d) for d in (frame[0] - box[0], frame[1] - box[1], box[2] - frame[2], box[3] - frame[3]))
