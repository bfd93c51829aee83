"""The result of a search: a front of points."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ...errors import InputError, LimitsNotMet
from ...evaluators import Measurement
from ..values import PICKS, Kind, Limits, Objective, parse_bounds
from ._cost_scale import NOISY

if TYPE_CHECKING:
    from torch import nn


_REASON_SHOWN = 160
"""Most characters of a reason in the line about lost baselines."""

Exporter: TypeAlias = Callable[..., Path]
"""A function `(run, point id, format, out, *, model) -> folder` that writes an artifact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """The best baseline that costs no more than a point, and the paired test on the report split.

    difference  lead of the point in the metric's unit, positive where the point is better; low, high: its 95 % interval
    p_value     one-sided, after Holm's correction over all points of the front
    """

    id: str
    label: str
    difference: float
    low: float
    high: float
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """Return the rival as JSON builtins, as in `paredown front --json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A model of the front, or a baseline.

    id              "t" and the trial's number
    metrics         the figures to rely on: those of the report split (test) for a verified point, else those of the
                    search split (validation)
    search_metrics  the figures that the point was chosen by
    verified        True if it was exported, loaded again in a fresh process, and measured there
    recommended     True if it has a star: it is verified, within the limits, and beats the baselines on the report
                    split (`_stars.py`)
    note            for a recommended point what it beat and by how much; else the reason why it is not recommended, or
                    another note
    rival           the baseline that it was compared with, and the result of the paired test; None where there is none
    agreement       difference of a verified point's outputs from PyTorch's with the same weights and quantizers, the
                    bound for its runtime, and the reason if it is missed; "" before it is verified
    config          fqn -> spec, as it is exported
    on_front        True if it is non-dominated
    exporter        writes the artifact, `(format, out, *, model) -> folder`; None if the front has no opened run
    label           label of a uniform setting: `w4 a8`, `threshold k75`; "" for others, and in old runs
    """

    id: str
    kind: Kind
    verified: bool
    recommended: bool
    metrics: Mapping[str, Measurement]
    search_metrics: Mapping[str, Measurement]
    config: Mapping[str, Any]
    on_front: bool = True
    note: str = ""
    agreement: str = ""
    label: str = ""
    rival: Rival | None = None
    exporter: Callable[..., Path] | None = field(default=None, repr=False, compare=False)

    @property
    def number(self) -> int:
        """Number of the trial."""
        return int(self.id.removeprefix("t"))

    @property
    def name(self) -> str:
        """Kind, label and id: `uniform w4 a8 (t2)`."""
        return (
            "the original"
            if self.kind == "original"
            else f"{' '.join(filter(None, [self.kind, self.label]))} ({self.id})"
        )

    def export(self, *, format: str, out: Path | str, model: nn.Module | None = None) -> Path:
        """Write this point's artifact to the folder `out`, measured in a fresh process, and return that folder.

        format  see `paredown.export_point`
        model   the model, if the search was given it as an object

        Raises `InputError` for a point that belongs to no opened run.
        """
        if self.exporter is None:
            raise InputError(f"{self.id} belongs to no opened run; take it from paredown.open_run(run).front()")
        return self.exporter(format, out, model=model)

    def to_dict(self) -> dict[str, Any]:
        """Return the point as JSON builtins, as in `paredown front --json`."""
        return {
            "id": self.id,
            "kind": self.kind,
            "label": self.label,
            "verified": self.verified,
            "recommended": self.recommended,
            "on_front": self.on_front,
            "note": self.note,
            "agreement": self.agreement,
            "rival": self.rival and self.rival.to_dict(),
            "metrics": {name: _brief(m) for name, m in self.metrics.items()},
            "search_metrics": {name: _brief(m) for name, m in self.search_metrics.items()},
            "config": dict(self.config),
        }


def _brief(measurement: Measurement) -> dict[str, Any]:
    return {
        "value": measurement.value,
        "low": measurement.low,
        "high": measurement.high,
        "unit": measurement.unit,
        "source": measurement.source,
        "split": measurement.split,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class LostBaseline:
    """A baseline that gave no result, so that nothing is known to be better than it.

    id      "t" and the number of its trial
    label   its label: `w4 a8`; "" in old runs
    failed  "evaluation" or "verification": the step that it did not get through
    reason  of the failure
    points  ids of the points that are not recommended because of it
    """

    id: str
    label: str
    failed: str
    reason: str
    points: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the baseline as JSON builtins, as in `paredown front --json`."""
        return {
            "id": self.id, "label": self.label, "failed": self.failed, "reason": self.reason,
            "points": list(self.points),
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """The points beside the original and the uniform baselines, cheapest first.

    picks        name -> point id; a name without a point is absent
    hypervolume  hypervolume of the front on the search split, against the original's corner
    nearest      description of the trial nearest to the limits, if no trial meets them
    run          folder of the run
    lost         baselines that failed, for which points are not recommended
    no_star      reason why no point is recommended; "" if one is, and before the first trial
    profile      name of the hardware profile whose costs are shown
    exporter     writes a point's artifact; None if the front was read without an opened run
    """

    points: tuple[Point, ...]
    picks: Mapping[str, str]
    objectives: tuple[Objective, ...]
    limits: Limits
    run: Path
    hypervolume: float | None = None
    nearest: str | None = field(default=None)
    lost: tuple[LostBaseline, ...] = ()
    no_star: str = ""
    profile: str = ""
    exporter: Exporter | None = field(default=None, repr=False, compare=False)

    def __getitem__(self, point_id: str) -> Point:
        for point in self.points:
            if point.id == point_id:
                return point
        known = ", ".join(point.id for point in self.points)
        raise InputError(f"no point {point_id!r} on this front; it has {known or 'none'}")

    @property
    def original(self) -> Point:
        """The point of the original model."""
        return next(point for point in self.points if point.kind == "original")

    @property
    def aa_floor(self) -> float | None:
        """Largest relative difference in the A/A test of two loads of the original; None where none was made."""
        floors = [p.metrics["aa_floor"].value for p in self.points if p.kind == "original" and "aa_floor" in p.metrics]
        return floors[0] if floors else None

    @property
    def noise_line(self) -> str:
        """One line about latencies that mean little on this machine; "" where they can be told apart."""
        floor = self.aa_floor
        if floor is None or floor <= NOISY:
            return ""
        return (
            f"the latencies mean little: two loads of the original itself came out {100 * floor:.0f} % apart (A/A "
            f"test), so nothing is starred for its latency; measure again on a quiet machine"
        )

    @property
    def lost_line(self) -> str:
        """One line about the points that have no uniform setting to be compared with; "" if there are none."""
        if not self.lost:
            return ""
        points = dict.fromkeys(point for baseline in self.lost for point in baseline.points)
        first, *others = (f"{f'uniform {b.label}'.rstrip()} ({b.id})" for b in self.lost)
        more = f" and {len(others)} more" if len(others) > 1 else "".join(f" and {other}" for other in others)
        reason = self.lost[0].reason
        reason = f"{reason[:_REASON_SHOWN].rstrip()}…" if len(reason) > _REASON_SHOWN else reason
        return (
            f"no ★ for {', '.join(points)}: they would have to beat {first}{more}, which failed in "
            f"{self.lost[0].failed}: {reason}"
        )

    @property
    def star_lines(self) -> tuple[str, ...]:
        """Lines about stars: why there are none, latencies that mean little, and baselines that failed.

        Where nothing is starred, the picks come from all verified points, and a line says so.
        """
        lines = [self.no_star] if self.no_star else []
        if self.no_star and self.picks and any(self[chosen].verified for chosen in self.picks.values()):
            lines = [f"{self.no_star}; the picks are of all verified points, baselines included"]
        return tuple(line for line in (*lines, self.noise_line, self.lost_line) if line)

    @property
    def size_lines(self) -> tuple[str, ...]:
        """Lines about sizes: the original's in FP32 where its source is not FP32, and exports larger than it."""
        original = next((point for point in self.points if point.kind == "original"), None)
        if original is None:
            return ()
        lines, size = [], original.metrics["bytes"].value
        if (wide := original.metrics.get("fp32_bytes")) is not None:
            lines.append(
                f"the original's {size:.0f} bytes are those of its source; in FP32, in which it computes here, it has "
                f"{wide.value:.0f}"
            )
        files = {p.id: p.metrics["file_bytes"].value for p in self.points if "file_bytes" in p.metrics and p.verified}
        larger = [point for point, n in files.items() if n > size and point != original.id]
        if larger:
            why = (
                "in this format the graph and what has no narrow form stand in FP32"
                if wide is not None
                else "in this format tables, names and graph take more than compression saves"
            )
            lines.append(f"the exported files of {', '.join(larger)} are larger than the original: {why}")
        return tuple(lines)

    def pick(self, expression: str) -> Point:
        """Return a point by id, by the name of a pick, or by limits.

        Limits such as `"accuracy>=0.98,latency_ms<=0.5"` give the best of the points that meet all of them: best in the
        first objective that the expression does not bound, else in the last objective. Recommended points come before
        the others.

        Raises `LimitsNotMet` with the nearest point if none meets the limits, and `InputError` for an unknown point or
        an expression that cannot be read.
        """
        if expression in self.picks:
            return self[self.picks[expression]]
        if expression in PICKS:
            raise LimitsNotMet(
                f"this front has no point for {expression!r}: {self.nearest or 'it has no recommended point'}"
            )
        if not re.search(r"[<>=]", expression):
            return self[expression]
        bounds = parse_bounds(expression)
        for name, _, _ in bounds:
            if not any(name in point.metrics for point in self.points):
                raise InputError(f"no metric {name!r} on this front; it has {', '.join(self.points[0].metrics)}")
        candidates = [p for p in self.points if p.kind != "original" and all(_meets(p, bound) for bound in bounds)]
        if not candidates:
            raise LimitsNotMet(f"no point meets {expression}; {self._nearest_to(bounds)}")
        bounded = {name for name, _, _ in bounds}
        free = [o for o in self.objectives if o.name not in bounded] or [self.objectives[-1]]
        return min(candidates, key=lambda p: (not p.recommended, free[0].key(p.metrics[free[0].name].value)))

    def _nearest_to(self, bounds: Sequence[tuple[str, str, float]]) -> str:
        def miss(point: Point) -> float:
            return sum(
                abs(point.metrics[name].value - value) / (abs(value) or 1.0)
                for name, sign, value in bounds
                if name in point.metrics and not _meets(point, (name, sign, value))
            )

        best = min((p for p in self.points if p.kind != "original"), key=miss, default=None)
        if best is None:
            return "there are no points yet"
        has = ", ".join(f"{name} {best.metrics[name].value:.6g}" for name, _, _ in bounds if name in best.metrics)
        return f"the nearest is {best.id} with {has}"

    def with_exporter(self, exporter: Exporter) -> Front:
        """Return this front with an exporter, so that its points can be exported."""
        points = tuple(replace(p, exporter=partial(exporter, self.run, p.id)) for p in self.points)
        return replace(self, points=points, exporter=exporter)

    def export(self, point: Point | str, *, format: str, out: Path | str, model: nn.Module | None = None) -> Path:
        """Write the point's artifact to the folder `out`, and return that folder. See `paredown.export_point`.

        point  a point of this front, or an id, a pick, or limits
        model  the model, if the search was given it as an object

        Raises `InputError` for a front that belongs to no opened run.
        """
        if self.exporter is None:
            raise InputError(f"this front belongs to no opened run; use paredown.open_run({str(self.run)!r}).front()")
        return self.exporter(self.run, point if isinstance(point, str) else point.id, format, out, model=model)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON of `paredown front --json`; docs/json.md lists its keys."""
        return {
            "points": [point.to_dict() for point in self.points],
            "picks": dict(self.picks),
            "objectives": [
                {"name": o.name, "direction": "maximise" if o.maximise else "minimise"} for o in self.objectives
            ],
            "limits": {name: {"min": low, "max": high} for name, (low, high) in self.limits.items()},
            "hypervolume": self.hypervolume,
            "run": str(self.run),
            "lost_baselines": [baseline.to_dict() for baseline in self.lost],
            "no_star": self.no_star,
            "aa_floor": self.aa_floor,
            "profile": self.profile,
        }


def _meets(point: Point, bound: tuple[str, str, float]) -> bool:
    name, sign, value = bound
    if name not in point.metrics:
        return False
    have = point.metrics[name].value
    return {">=": have >= value, "<=": have <= value, ">": have > value, "<": have < value}[sign]
