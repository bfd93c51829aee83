"""Measured value with its interval, source and samples."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Source = Literal["measured", "predicted", "modelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One value of one metric.

    low, high  95 % interval; both None where the value is exact (bytes, MACs); one of them None where the data do not
               bound it on that side (the 99th percentile of sixty runs may be anything above)
    source     measured (it ran here), predicted (a fitted model), modelled (a device's profile)
    split      the data it was measured on: "calibration", "search", "report", or None
    n          how many samples (or timed runs) it rests on
    samples    the raw samples, where they are kept: per-sample scores, or milliseconds
    """

    value: float
    unit: str = ""
    low: float | None = None
    high: float | None = None
    source: Source = "measured"
    split: str | None = None
    n: int = 0
    samples: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.source not in get_args(Source):
            raise ValueError(f"source must be one of {', '.join(get_args(Source))}, got {self.source!r}")

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.value)

    def to_dict(self, *, samples: bool = True) -> dict[str, Any]:
        """JSON-ready; with `samples=False` the raw samples are left out."""
        data = dataclasses.asdict(self)
        data["samples"] = list(self.samples)
        if not samples or not self.samples:
            del data["samples"]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measurement:
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(data) - known):
            raise ValueError(f"unknown key {unknown[0]!r} in a measurement; known are {', '.join(sorted(known))}")
        return cls(**{**data, "samples": tuple(data.get("samples", ()))})
