"""Contents of a picture of a front, as plain values: axes, points and their roles. It needs no drawing library."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ...compressors import LayerSpec
from ...compressors.values import StructuralName
from ...evaluators import Measurement, Source
from ..values import Completed, Trial

if TYPE_CHECKING:
    from ..front import Front, Point

Role = Literal["original", "uniform", "recommended", "other"]

COSTS = {
    "bytes": "size",
    "latency_ms": "latency (p10, batch 1)",
    "macs": "multiply-accumulates per sample",
    "bops": "bit operations per sample",
    "energy_mj": "energy per sample",
    "ms_per_sample": "time per sample, in batches",
    "peak_activation_bytes": "activations at their peak",
    "memory_bytes": "memory while it runs",
    "co2_g_per_million": "CO2 for a million samples",
}
"""Metrics of a model's costs, with the words for their axis; every other metric is about quality."""

WORDS: dict[Role, str] = {
    "original": "original",
    "uniform": "uniform settings",
    "recommended": "mixed, recommended",
    "other": "mixed, not recommended",
}

LOG_FROM = 4.0
"""A cost axis is logarithmic where its largest value is at least so many times its smallest."""

LEAST_SPAN = 0.25
"""An axis of latencies spans at least this share of its middle, so that ties look like ties."""

_UNITS: dict[str, tuple[float, str]] = {
    "latency_ms": (1.0, "ms"), "energy_mj": (1.0, "mJ"), "ms_per_sample": (1.0, "ms"),
    "co2_g_per_million": (1.0, "g"),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One metric as an axis. It draws a value times `scale`, in `unit`.

    source  the only source of figures that a cost axis shows; None where it shows any
    """

    name: str
    words: str
    unit: str
    scale: float
    maximise: bool
    log: bool = False
    source: Source | None = None

    @property
    def title(self) -> str:
        """Words and unit, for the picture."""
        return f"{self.words} [{self.unit}]" if self.unit else self.words

    def __call__(self, value: float) -> float:
        """The value in drawn units."""
        return self.scale * value

    def shows(self, metrics: Mapping[str, Measurement]) -> bool:
        """True if these metrics have a figure for the axis: a modelled latency does not stand beside measured ones."""
        return self.name in metrics and self.source in (None, metrics[self.name].source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One point of a front against two axes, in drawn units. A bound is None where the value is exact.

    label  description of a uniform setting (`w4 a8`), else the point's id
    marks  names of the picks that this point is (`knee`, `fastest`, …)
    """

    id: str
    role: Role
    label: str
    marks: tuple[str, ...]
    note: str
    verified: bool
    x: float
    y: float
    x_low: float | None = None
    x_high: float | None = None
    y_low: float | None = None
    y_high: float | None = None


def role_of(point: Point) -> Role:
    """The role that decides the marker of a point."""
    if point.kind == "mixed":
        return "recommended" if point.recommended else "other"
    return "original" if point.kind == "original" else "uniform"


def uniform_label(config: Mapping[str, Any]) -> str:
    """Label of a config: the spec of most of its layers (`w4 a8`), and the shares that its sets keep.

    `k75` stands for one share, and `k75×2 k50×3 whole×1` for several. Empty for a config without layers.
    """
    layers: Counter[str] = Counter()
    sets: Counter[float] = Counter()
    shares: dict[float, str] = {1.0: "whole"}
    for name, data in config.get("layers", {}).items():
        spec = LayerSpec.from_dict(data)
        if (structure := StructuralName.parse(name)) is None:
            layers[spec.label()] += 1
        elif spec.changes_structure or not structure.is_block:
            sets[spec.keep] += 1
            shares.setdefault(spec.keep, spec.label())
    labels = [label for label, _ in layers.most_common(1)]
    if any(share < 1.0 for share in sets):
        one = len(sets) == 1
        ordered = sorted(sets, key=lambda share: (share == 1.0, -share))
        labels = [label for label in labels if label != LayerSpec().label()]
        labels += [shares[share] if one else f"{shares[share]}×{sets[share]}" for share in ordered]
    return " ".join(labels)


def label_of(point: Point) -> str:
    """Label of a uniform setting, or of an allocation that needs no search; empty for other points."""
    return (point.label or uniform_label(point.config)) if point.kind == "uniform" else ""


def quality_name(front: Front) -> str:
    """Metric of the quality axis: the first objective that is no cost, else the first such metric of a point, else the
    first objective."""
    names = [o.name for o in front.objectives] + [name for p in front.points for name in p.metrics]
    return next((name for name in names if name not in COSTS), names[0])


def cost_names(front: Front) -> tuple[str, ...]:
    """Costs that get an axis: the objectives among them first, then size and latency where they are known."""
    wanted = [o.name for o in front.objectives if o.name in COSTS] + ["bytes", "latency_ms"]
    known = {name for p in front.points for name in p.metrics}
    return tuple(name for name in dict.fromkeys(wanted) if name in known)


def axis(front: Front, name: str) -> Axis:
    """Make the axis of a metric. Raises `KeyError` if no point has the metric."""
    measured = [p.metrics[name] for p in front.points if name in p.metrics]
    if not measured:
        raise KeyError(name)
    if name in COSTS:
        values = [m.value for m in measured if m.value > 0]
        scale, unit = _cost_unit(name, max(values, default=1.0))
        wide = bool(values) and max(values) >= LOG_FROM * min(values)
        source = "measured" if any(m.source == "measured" for m in measured) else measured[0].source
        words = COSTS[name] + ("" if source == "measured" else f", {source}")
        if any(placed(front, p, name) is not p.metrics[name] for p in front.points if name in p.metrics):
            words = words.replace(")", "; by the ratio to the original)")
        return Axis(name=name, words=words, unit=unit, scale=scale, maximise=False, log=wide, source=source)
    objective = next((o for o in front.objectives if o.name == name), None)
    fraction = name == "accuracy" or measured[0].unit == "fraction"
    return Axis(
        name=name,
        words=name,
        unit="%" if fraction else ("" if measured[0].unit in ("1", name) else measured[0].unit),
        scale=100.0 if fraction else 1.0,
        maximise=objective.maximise if objective is not None else fraction,
    )


def _cost_unit(name: str, largest: float) -> tuple[float, str]:
    if name.endswith("bytes"):
        return (1e-6, "MB") if largest >= 20e6 else (1e-3, "kB")
    if name in ("macs", "bops"):
        return (1e-9, "G") if largest >= 20e9 else (1e-6, "M")
    return _UNITS.get(name, (1.0, ""))


def placed(front: Front, point: Point, name: str) -> Measurement:
    """The metric that a point is drawn at.

    A measured latency is drawn as the original's latency over the point's speed-up, because the machine may have slowed
    down between two points. Where a limit is on the latency, it stays as it was measured.
    """
    metric, speedup = point.metrics[name], point.metrics.get("speedup")
    original = next((p.metrics.get(name) for p in front.points if p.kind == "original"), None)
    if name != "latency_ms" or name in front.limits or speedup is None or original is None:
        return metric
    if metric.source != "measured" or original.source != "measured" or speedup.value <= 0:
        return metric

    def at(times: float | None) -> float | None:
        return original.value / times if times else None

    return replace(metric, value=original.value / speedup.value, low=at(speedup.high), high=at(speedup.low))


def dots(front: Front, x: Axis, y: Axis) -> list[Dot]:
    """Points that have both metrics, in the order of the front."""
    along = {p.id: placed(front, p, x.name) for p in front.points if x.name in p.metrics}
    return [
        Dot(
            id=p.id,
            role=role_of(p),
            label=label_of(p) or p.id,
            marks=tuple(name for name, chosen in front.picks.items() if chosen == p.id),
            note=p.note,
            verified=p.verified,
            x=x(along[p.id].value),
            y=y(p.metrics[y.name].value),
            **_bounds("x", x, along[p.id]),
            **_bounds("y", y, p.metrics[y.name]),
        )
        for p in front.points
        if x.shows(p.metrics) and y.shows(p.metrics)
    ]


def _bounds(letter: str, along: Axis, measured: Measurement) -> dict[str, Any]:
    if measured.low is None or measured.high is None:
        return {}
    return {f"{letter}_low": along(measured.low), f"{letter}_high": along(measured.high)}


def cloud(trials: Sequence[Trial], x: Axis, y: Axis) -> list[tuple[float, float]]:
    """(x, y) of every completed mixed trial, in drawn units, from the search split."""
    return [
        (x(t.metrics[x.name].value), y(t.metrics[y.name].value))
        for t in trials
        if isinstance(t, Completed) and t.kind == "mixed" and x.shows(t.metrics) and y.shows(t.metrics)
    ]


def interesting(dots: Sequence[Dot], y: Axis) -> tuple[float, float]:
    """Range of the quality axis, without points that are far behind and would squeeze the others flat.

    The original and the mixed points are always inside. A uniform setting is inside if it lies within twice their range
    of them. Points outside are drawn at the edge, with their value.
    """
    sure = [
        v
        for d in dots
        if d.role in ("original", "recommended", "other")
        for v in (d.y, d.y_low, d.y_high)
        if v is not None
    ]
    if not sure:
        sure = [d.y for d in dots] or [0.0]
    low, high = min(sure), max(sure)
    span = (high - low) or abs(high) * 0.02 or 1.0
    reach = 2.0 * span
    near = [v for d in dots for v in (d.y, d.y_low, d.y_high) if v is not None and low - reach <= d.y <= high + reach]
    low, high = min([low, *near]), max([high, *near])
    margin = 0.08 * ((high - low) or span)
    return low - margin, high + margin


def no_closer(low: float, high: float) -> tuple[float, float]:
    """The range, widened to `LEAST_SPAN` of its middle."""
    middle = (low + high) / 2
    half = max(high - low, LEAST_SPAN * middle) / 2
    return middle - half, middle + half


def split_of(front: Front, name: str) -> str | None:
    """The split of the verified points' figures ("report"), else the first split that a point names."""
    splits = [p.metrics[name].split for p in front.points if name in p.metrics and p.metrics[name].split]
    return "report" if "report" in splits else (splits[0] if splits else None)


def limit_lines(front: Front, x: Axis, y: Axis) -> list[tuple[str, float]]:
    """("x" or "y", where) for each limit that a picture of these two axes can show."""
    return [
        (letter, along(bound))
        for letter, along in (("x", x), ("y", y))
        for bound in front.limits.get(along.name, (None, None))
        if bound is not None
    ]


def bound_of(front: Front, name: str, bound: float) -> str:
    """A limit in the drawn unit of its metric."""
    if not any(name in p.metrics for p in front.points):
        return f"{bound:g}"
    along = axis(front, name)
    return f"{along(bound):.6g} {along.unit}".rstrip()


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten, from just below `low` to just above `high`; both must be positive."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**power for power in powers for step in (1, 2, 5)]


def value_of(point: Point, name: str) -> str:
    """Text of a metric on the page: value, unit, interval, and the source if it was not measured."""
    measured = point.metrics[name]
    scale, digits, unit = 1.0, ",.4g", measured.unit
    if name == "accuracy" or measured.unit == "fraction":
        scale, digits, unit = 100.0, ".2f", "%"
    elif float(measured.value).is_integer() and measured.low is None:
        digits = ",.0f"
    text = f"{scale * measured.value:{digits}} {unit}".rstrip()
    bounds = measured.low, measured.high
    if any(bound is not None for bound in bounds):
        text += f" [{', '.join('?' if bound is None else f'{scale * bound:{digits}}' for bound in bounds)}]"
    return text if measured.source == "measured" else f"{text} ({measured.source})"
