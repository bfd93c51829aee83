"""Latency table: measurements of one model on one runtime and machine, and predictions for all its other forms."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..._arrays import FloatArray
from ...errors import InputError
from ..runtimes import options_dict, unnamed_options
from ..values import Measurement
from ._features import Forms, LayerClass, Layout
from ._fit import NAMES, Fitted, fit
from ._forms import Form
from ._wiring import Edge, Wiring

SCHEMA_VERSION = 1
LEAST_MODELS = 4
_OPTIONS = "runtime_options"
"""Fact of `LatencyTable.machine` that tables of earlier versions do not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredModel:
    """One whole model that was timed. ratio: to the original interleaved with it; error: its standard error."""

    forms: Forms
    ratio: float
    error: float
    ms: tuple[float, ...] = ()
    original_ms: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Reliability of the table, with each model predicted from all others.

    mape, worst  mean and largest relative error
    covered      share of the models within their own 95 % interval
    noise        median relative standard error of the measurements themselves
    """

    n: int
    mape: float
    worst: float
    covered: float
    noise: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyTable:
    """Latency model fitted to whole models measured end to end; JSON.

    model        digest of the weights that were measured
    machine      CPU, core, NUMA node, versions, options of the runtime's sessions
    original_ms  p10 of the FP32 original in this runtime, over all its runs here
    scales       scales of the fit, see `_fit`; a loaded table is fitted again with them
    seconds      time that the measurement took
    """

    model: str
    runtime: str
    threads: int
    machine: Mapping[str, Any]
    layout: Layout
    measured: tuple[MeasuredModel, ...]
    original_ms: float
    scales: Mapping[str, float]
    seconds: float = 0.0
    date: str = ""
    _fitted: Fitted | None = field(default=None, repr=False, compare=False)

    def fitted(self) -> Fitted:
        """Fit of the measured models; it is made once."""
        if self._fitted is not None:
            return self._fitted
        fitted = fit(
            self.layout,
            [m.forms for m in self.measured],
            [m.ratio for m in self.measured],
            [m.error for m in self.measured],
            scales=self.scales,
        )
        object.__setattr__(self, "_fitted", fitted)
        return fitted

    def ratios(self, many: Sequence[Mapping[str, Form]]) -> tuple[FloatArray, FloatArray]:
        """(mean, standard deviation with noise) of the latency relative to the original's, each (n,)."""
        fitted = self.fitted()
        mean, deviation = fitted.predict([self.layout.forms(forms) for forms in many])
        return mean, np.hypot(deviation, fitted.scales["noise"] * mean)

    def predict(self, forms: Mapping[str, Form], *, original_ms: float | None = None) -> Measurement:
        """Predicted milliseconds with a 95 % interval, `source` "predicted".

        original_ms  what the original takes now; by default what it took when the table was measured
        """
        mean, deviation = self.ratios([forms])
        base = self.original_ms if original_ms is None else original_ms
        ratio, half = float(mean[0]), 1.96 * float(deviation[0])
        return Measurement(
            value=ratio * base, unit="ms", low=max(0.0, ratio - half) * base, high=(ratio + half) * base,
            source="predicted", n=len(self.measured),
        )  # fmt: skip

    def quality(self) -> Quality:
        foreseen, deviation = self.fitted().left_out()
        ratios = np.array([m.ratio for m in self.measured])
        apart = np.abs(foreseen - ratios)
        return Quality(
            n=len(ratios),
            mape=float((apart / ratios).mean()),
            worst=float((apart / ratios).max()),
            covered=float((apart <= 1.96 * deviation).mean()),
            noise=float(np.median([m.error / m.ratio for m in self.measured])),
        )

    def check(self, *, model: str, runtime: str, threads: int, options: Mapping[str, Any] | None = None) -> None:
        """Check the table. Raises `InputError` where it is of another model, runtime or number of threads, or of other
        options of the runtime (None: they are not compared).
        """
        for what, mine, wanted in (
            ("model", self.model, model), ("runtime", self.runtime, runtime), ("threads", self.threads, threads)
        ):  # fmt: skip
            if mine != wanted:
                raise InputError(
                    f"this latency table is of the {what} {mine!r}, and the task has {wanted!r}; "
                    "measure again with `paredown profile --task TASK --out FILE`"
                )

        mine_options = self.machine.get(_OPTIONS, options_dict(unnamed_options(self.runtime)))
        if options is not None and mine_options != options:
            raise InputError(
                f"this latency table was measured with the options {mine_options}, and the task has {options}; "
                "measure again with `paredown profile --task TASK --out FILE`, or name its options in [hardware] "
                "runtime_options"
            )

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "runtime": self.runtime,
            "threads": self.threads,
            "machine": dict(self.machine),
            "date": self.date,
            "seconds": self.seconds,
            "original_ms": self.original_ms,
            "scales": dict(self.scales),
            "layers": [dataclasses.asdict(layer) for layer in self.layout.layers],
            "edges": [dataclasses.asdict(edge) for edge in self.layout.wiring.edges],
            "tensors": [list(tensor) for tensor in self.layout.wiring.tensors],
            "measured": [_model_to_dict(m) for m in self.measured],
        }

    @property
    def names_options(self) -> bool:
        """True where the table says with which options of the runtime it was measured."""
        return _OPTIONS in self.machine

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, source: str = "the latency table") -> LatencyTable:
        """Inverse of `to_dict`. Raises `InputError` for an unknown or missing key, another schema version, or
        impossible figures.
        """
        known = set(_KEYS)
        if unknown := sorted(set(data) - known):
            raise InputError(f"{source}: unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}")
        if missing := [key for key in _KEYS if key not in data]:
            raise InputError(f"{source}: the key {missing[0]!r} is missing")
        if data["schema_version"] != SCHEMA_VERSION:
            raise InputError(f"{source}: schema_version must be {SCHEMA_VERSION}, got {data['schema_version']!r}")
        if set(data["scales"]) != set(NAMES):
            raise InputError(f"{source}: scales must be {', '.join(NAMES)}, got {', '.join(data['scales'])}")
        try:
            layout = Layout(
                layers=tuple(LayerClass(**layer) for layer in data["layers"]),
                wiring=Wiring(
                    edges=tuple(Edge(**edge) for edge in data["edges"]),
                    tensors=tuple(tuple(tensor) for tensor in data["tensors"]),
                ),
            )
            measured = tuple(_model_from_dict(row, len(layout.layers)) for row in data["measured"])
        except (TypeError, ValueError, KeyError) as error:
            raise InputError(f"{source}: {error}") from error
        if len(measured) < LEAST_MODELS:
            raise InputError(f"{source}: at least {LEAST_MODELS} measured models are needed, got {len(measured)}")
        if not data["original_ms"] > 0:
            raise InputError(f"{source}: original_ms must be positive, got {data['original_ms']!r}")
        plain = {key: data[key] for key in _KEYS[1:9]}
        return cls(**plain, layout=layout, measured=measured)

    def save(self, path: Path) -> None:
        """Write the table atomically: to a file beside it, then by a rename."""
        beside = path.with_name(f"{path.name}.tmp")
        beside.write_text(json.dumps(self.to_dict()) + "\n", encoding="utf-8")
        beside.replace(path)

    @classmethod
    def load(cls, path: Path) -> LatencyTable:
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"cannot read the latency table {path}: {error.strerror or error}") from error
        except ValueError as error:
            raise InputError(f"the latency table {path} is no JSON: {error}") from error
        if not isinstance(data, dict):
            raise InputError(f"the latency table {path} must be a JSON object, got {type(data).__name__}")
        return cls.from_dict(data, source=str(path))


_KEYS = (
    "schema_version", "model", "runtime", "threads", "machine", "original_ms", "scales", "seconds", "date", "layers",
    "edges", "tensors", "measured",
)  # fmt: skip


def _model_to_dict(model: MeasuredModel) -> dict[str, Any]:
    return {
        "forms": [form.label() for form in model.forms],
        "ratio": model.ratio,
        "error": model.error,
        "ms": [round(x, 5) for x in model.ms],
        "original_ms": [round(x, 5) for x in model.original_ms],
    }


def _model_from_dict(row: Mapping[str, Any], n_layers: int) -> MeasuredModel:
    forms = tuple(Form.from_label(label) for label in row["forms"])
    if len(forms) != n_layers:
        raise ValueError(f"a measured model has {len(forms)} forms, and there are {n_layers} layers")
    if not (row["ratio"] > 0 and row["error"] >= 0):
        raise ValueError(f"a ratio must be positive and its error not negative, got {row['ratio']} and {row['error']}")
    return MeasuredModel(
        forms=forms, ratio=row["ratio"], error=row["error"], ms=tuple(row["ms"]), original_ms=tuple(row["original_ms"])
    )
