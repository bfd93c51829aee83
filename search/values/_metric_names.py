"""Names of metrics, and measurements of static costs.

A task may name several hardware profiles. A cost on the first has a plain name (`latency_ms`). The same cost on
another device has the name of its profile behind it (`latency_ms@raspberry-pi-5-onnxruntime`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from ...evaluators import Measurement

T = TypeVar("T")

MEMORY = ("peak_activation_bytes", "memory_bytes")
MODELLED = ("latency_ms", "energy_mj", "co2_g_per_million", "ms_per_sample", *MEMORY)
"""Costs that depend on the device. Memory is no sum over groups: `Device.exact` corrects the estimate of its rows."""
COUNTED = ("bytes", "macs", "bops")
"""Costs that are the same on every device."""

_UNITS = {
    "bytes": "B", "macs": "MAC", "bops": "BOP", "latency_ms": "ms", "energy_mj": "mJ", "ms_per_sample": "ms",
    "peak_activation_bytes": "B", "memory_bytes": "B", "throughput": "samples/s", "co2_g_per_million": "g",
}  # fmt: skip
_AT = "@"


@dataclass(frozen=True, slots=True)
class MetricName:
    """A metric, and the device that it belongs to.

    base    the plain name
    device  name of the profile; None: the first device, or a metric that is the same on all
    """

    base: str
    device: str | None = None

    @classmethod
    def parse(cls, text: str) -> MetricName:
        """Return the parts of a name as it stands in tables and ledgers."""
        base, _, device = text.partition(_AT)
        return cls(base, device or None)

    def __str__(self) -> str:
        return self.base if self.device is None else f"{self.base}{_AT}{self.device}"


def metric_on_device(name: str, device: str | None) -> str:
    """Return the name of a metric on a device; None: the first device."""
    return str(MetricName(name, device))


def base_name(name: str) -> str:
    """Return the plain name of a metric, without its device."""
    return MetricName.parse(name).base


def of_first_device(values: Mapping[str, T]) -> dict[str, T]:
    """Return the values of metrics that belong to the first device, or to all of them."""
    return {name: value for name, value in values.items() if MetricName.parse(name).device is None}


def metrics_on_device(values: Mapping[str, float], device: str | None) -> dict[str, float]:
    """Return the values on one device by their plain names, with those that are the same on all; None: the first."""
    found = {name: value for name, value in of_first_device(values).items() if name not in MODELLED}
    for base in MODELLED:
        if (name := metric_on_device(base, device)) in values:
            found[base] = values[name]
    return found


def static_measurement(name: str, value: float) -> Measurement:
    """Return a cost that needs no forward pass: bytes, MACs and BOPs are counted, others modelled from the profile."""
    base = base_name(name)
    return Measurement(value=value, unit=_UNITS[base], source="measured" if base in COUNTED else "modelled")


def static_measurements(totals: Mapping[str, float], grid_g_per_kwh: float | None) -> dict[str, Measurement]:
    """Return all static costs with what follows from them.

    Throughput follows from the time of a sample, and carbon from energy and `grid_g_per_kwh`.
    """
    from ...evaluators import co2_g_per_million

    found = {name: static_measurement(name, value) for name, value in totals.items()}
    for name, value in totals.items():
        metric = MetricName.parse(name)
        if metric.base == "ms_per_sample" and value > 0:
            new = metric_on_device("throughput", metric.device)
            found[new] = static_measurement(new, 1000.0 / value)
        if metric.base == "energy_mj" and grid_g_per_kwh is not None:
            new = metric_on_device("co2_g_per_million", metric.device)
            found[new] = static_measurement(new, co2_g_per_million(value, grid_g_per_kwh))
    return found


def not_measured(metrics: Mapping[str, Measurement]) -> dict[str, Measurement]:
    """Return the metrics whose source is a profile or a fitted model."""
    return {name: m for name, m in metrics.items() if m.source != "measured"}
