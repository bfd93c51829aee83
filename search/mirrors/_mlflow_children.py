"""The child runs in MLflow, as plain values. MLflow is not imported here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...compressors import LayerSpec
from ..space import config_of
from ..values import STATUS, Completed, EarlyStopped, Failed, LowFidelity, SearchSpace, Trial

if TYPE_CHECKING:
    from ...evaluators import Measurement
    from ..front import Front, Point

AXES = {"weight_bits": "w", "activation_bits": "a", "sparsity": "zeros", "rank": "rank"}
"""Field of a spec -> the short prefix of its parameters: `w layer1.0.conv2` is that layer's weight bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """One child run. `paredown apply` takes its `config`. Only tags and metrics may change later."""

    id: str
    kind: str
    label: str
    config: Mapping[str, Any]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    failed: bool = False

    @property
    def name(self) -> str:
        """Name of the run in MLflow."""
        return " ".join(filter(None, (self.id, self.kind, self.label)))

    @property
    def digest(self) -> str:
        """Digest of name, metrics, tags and failure; it changes when there is something new to log."""
        text = json.dumps([self.name, dict(self.metrics), dict(self.tags), self.failed], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def params(self, axes: Sequence[str], space: SearchSpace) -> dict[str, str]:
        """Parameters for parallel coordinates: the same names for every child of a run, and numbers where possible."""
        layers = self.config["layers"]
        params = {"point": self.id, "kind": self.kind}
        for axis in axes:
            values = [getattr(LayerSpec.from_dict(layers.get(group.layers[0], {})), axis) for group in space.groups]
            params[f"mean {AXES[axis]}"] = f"{sum(values) / max(1, len(values)):.4g}"
            params |= {
                f"{AXES[axis]} {group.name}": f"{value:g}" for group, value in zip(space.groups, values, strict=True)
            }
        return params


def axes_of(space: SearchSpace) -> list[str]:
    """The fields of a spec that differ anywhere in the space."""
    specs = {spec for group in space.groups for spec in group.levels}
    return [axis for axis in AXES if len({getattr(spec, axis) for spec in specs}) > 1]


def children_of(trials: Sequence[Trial], space: SearchSpace, front: Front | None, *, everything: bool) -> list[Child]:
    """Child runs of the points of the front and the baselines; with `everything` also of all other trials."""
    points = {} if front is None else {p.id: p for p in front.points if p.on_front or p.kind != "mixed" or everything}
    children = [_of_point(point, front) for point in points.values()] if front is not None else []
    if everything:
        children += [_of_trial(trial, space) for trial in trials if f"t{trial.number}" not in points]
    return children


def _of_point(point: Point, front: Front) -> Child:
    from ..report import label_of

    picks = ", ".join(name for name, chosen in front.picks.items() if chosen == point.id)
    tags = {
        "kind": point.kind,
        "verified": str(point.verified).lower(),
        "recommended": str(point.recommended).lower(),
        "pick": picks,
        "note": point.note,
        "modelled": _modelled(point.metrics),
    }
    return Child(
        id=point.id,
        kind=point.kind,
        label=label_of(point) if point.kind == "uniform" else picks,
        config=point.config,
        metrics=_numbers(point.metrics) | {f"search/{name}": m.value for name, m in point.search_metrics.items()},
        tags=tags,
    )


def _of_trial(trial: Trial, space: SearchSpace) -> Child:
    reason = "" if isinstance(trial, Completed) else trial.reason
    specs = {} if trial.kind == "original" else space.assignment(trial.candidate)
    return Child(
        id=f"t{trial.number}",
        kind=trial.kind,
        label=STATUS[type(trial)] if reason else "",
        config=config_of(specs),
        metrics={f"search/{name}": m.value for name, m in trial.metrics.items()}
        if isinstance(trial, Completed)
        else {},
        tags={
            "kind": trial.kind,
            "verified": "false",
            "recommended": "false",
            "pick": "",
            "note": reason,
            "modelled": "" if isinstance(trial, Failed) else _modelled(trial.metrics),
        },
        failed=not isinstance(trial, (Completed, EarlyStopped, LowFidelity)),
    )


def _modelled(metrics: Mapping[str, Measurement]) -> str:
    """Names of the metrics that are modelled from a hardware profile."""
    return ", ".join(name for name, measured in metrics.items() if measured.source == "modelled")


def _numbers(metrics: Mapping[str, Measurement]) -> dict[str, float]:
    """Name -> value, and the bounds where there is an interval."""
    numbers = {}
    for name, measured in metrics.items():
        numbers[name] = measured.value
        if measured.low is not None and measured.high is not None:
            numbers |= {f"{name}.low": measured.low, f"{name}.high": measured.high}
    return numbers
