"""What one run of one searcher found, and when: the file that everything else is worked out from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paredown.search.values import hypervolume, non_dominated

from .meter import booked, cost_of

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Divergences (nats) and bytes between which a front is measured; see `problems`."""

    floor: float
    ceiling: float
    cheapest: float
    dearest: float

    def scaled(self, points: ArrayLike) -> NDArray[np.float64]:
        """(divergence, bytes) rows into the unit square, shape (n, 2); minimised, and 0 is the best there is."""
        rows = np.asarray(points, dtype=np.float64).reshape(-1, 2)
        divergence = np.maximum(rows[:, 0], self.floor)
        height = np.log(divergence / self.floor) / math.log(self.ceiling / self.floor)
        return np.column_stack([height, (rows[:, 1] - self.cheapest) / (self.dearest - self.cheapest)])

    def volume(self, points: ArrayLike) -> float:
        """Hypervolume of (divergence, bytes) rows; the whole box is 1."""
        scaled = self.scaled(points)
        return hypervolume(scaled, np.array([1.0, 1.0])) if len(scaled) else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """Figures on samples that no decision saw. The original's are there too, for both kinds of samples.

    n           number of these samples
    divergence  of each of the trace's points, nats; None where the point is on no front that is judged
    metric      the same for the task's metric
    """

    n: int
    name: str
    maximise: bool
    original: float
    original_search: float
    divergence: tuple[float | None, ...]
    metric: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """points    (sample passes spent by then, divergence, bytes) of each full evaluation that moved the front, in order
    levels    of each of the points, so that it can be evaluated again; empty in traces from before they were kept
    metrics   the task's metric of each of the points, on the search samples; empty where there is none
    unseen    figures of the points on other samples; None if they were not taken
    samples   of one full evaluation
    spent     sample passes altogether; `booked` says for what
    instance  which problem it was, where the seed makes the problem (synthetic); 0 for a real one
    """

    problem: str
    searcher: str
    seed: int
    samples: int
    box: Box
    spent: float
    points: tuple[tuple[float, float, float], ...]
    levels: tuple[tuple[int, ...], ...] = ()
    metrics: tuple[float, ...] = ()
    unseen: Unseen | None = None
    instance: int = 0
    booked: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    context: Mapping[str, Any] = field(default_factory=dict)

    @property
    def evaluations(self) -> float:
        """What was spent, in full evaluations."""
        return self.spent / self.samples

    def front_at(self, evaluations: float) -> NDArray[np.float64]:
        """(divergence, bytes) rows found at the cost of so many full evaluations."""
        found = [point[1:] for point in self.points if point[0] <= evaluations * self.samples * (1 + 1e-9)]
        return np.array(found, dtype=np.float64).reshape(-1, 2)

    def on_front(self, evaluations: float) -> list[int]:
        """Places in `points` of those that no other beats, among what so many full evaluations had found."""
        found = self.front_at(evaluations)  # the first of the points: they stand in order of their cost
        return [int(i) for i in np.flatnonzero(non_dominated(found))] if len(found) else []

    def volume_at(self, evaluations: float) -> float:
        return self.box.volume(self.front_at(evaluations))

    def cost_to_reach(self, volume: float) -> float:
        """Full evaluations until the hypervolume is at least `volume`; infinite if it never was."""
        for n, point in enumerate(self.points, 1):
            if self.box.volume([p[1:] for p in self.points[:n]]) >= volume:
                return point[0] / self.samples
        return math.inf

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}) + "\n", encoding="utf-8")
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Trace:
        data = json.loads(path.read_text(encoding="utf-8"))
        if (version := data.pop("schema_version")) != SCHEMA_VERSION:
            raise ValueError(f"{path} is a trace of version {version}, expected {SCHEMA_VERSION}; run it again")
        data["box"] = Box(**data["box"])
        for name in ("points", "levels"):
            data[name] = tuple(tuple(row) for row in data.get(name, ()))
        data["metrics"] = tuple(data.get("metrics", ()))
        if (unseen := data.get("unseen")) is not None:
            figures = {name: tuple(unseen[name]) for name in ("divergence", "metric")}
            data["unseen"] = Unseen(**(unseen | figures))
        return cls(**data)


def load_traces(folder: Path) -> list[Trace]:
    """Every trace below `folder`, in the order of their paths."""
    return [Trace.load(path) for path in sorted(folder.glob("*/*.json"))]


def improving(
    records: Iterable[Mapping[str, Any]], box: Box, *, full: int, table_samples: int
) -> list[tuple[float, Mapping[str, Any]]]:
    """The completed trials that moved the front in the box, with the sample passes that were spent when they ended."""
    spent, front, found = 0.0, np.zeros((0, 2)), []
    for record in records:
        spent += cost_of(record, full=full, table_samples=table_samples)
        if record["type"] != "trial" or record["status"] != "completed" or record["kind"] == "original":
            continue
        scaled = box.scaled([_value(record, "divergence"), _value(record, "bytes")])
        if (scaled >= 1.0).any() or (front <= scaled).all(axis=1).any():
            continue
        front = np.concatenate([front[~(scaled <= front).all(axis=1)], scaled])
        found.append((spent, record))
    return found


def _value(record: Mapping[str, Any], name: str) -> float:
    return float(record["metrics"][name]["value"])


def trace_of(
    records: Sequence[Mapping[str, Any]], box: Box, *, problem: str, searcher: str, seed: int, full: int,
    table_samples: int, metric: str | None = None, instance: int = 0, seconds: float = 0.0,
    context: Mapping[str, Any] | None = None,
) -> Trace:  # fmt: skip
    """From a run's ledger records. `metric` is the name of the task's metric, None where there is none."""
    by_kind = booked(records, full=full, table_samples=table_samples)
    statuses = [record["status"] for record in records if record["type"] == "trial" and record["kind"] == "mixed"]
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    counts |= {name: sum(r["type"] == name for r in records) for name in ("row", "partial")}
    found = improving(records, box, full=full, table_samples=table_samples)
    return Trace(
        problem=problem, searcher=searcher, seed=seed, samples=full, box=box, spent=sum(by_kind.values()),
        points=tuple((spent, _value(record, "divergence"), _value(record, "bytes")) for spent, record in found),
        levels=tuple(tuple(record["levels"]) for _, record in found),
        metrics=() if metric is None else tuple(_value(record, metric) for _, record in found),
        instance=instance, booked=by_kind, counts=counts, seconds=seconds, context=context or {},
    )  # fmt: skip
