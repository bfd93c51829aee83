"""Placeholder."""

from __future__ import annotations

from collections.abc import Mapping

from ...evaluators import Measurement


def metric_on_device(name: str, device: str | None) -> str:
    """The metric's name for a device that is not the first."""
    return name if device is None else f"{name}@{device}"


def metrics_on_device(values: Mapping[str, float], device: str | None) -> dict[str, float]:
    """What is alike everywhere, and what depends on the device by its plain name; None: the first."""
    alike = {name: value for name, value in values.items() if "@" not in name and name not in MODELLED}
    return alike | {
        name: values[metric_on_device(name, device)] for name in MODELLED if metric_on_device(name, device) in values
    }


def base_name(name: str) -> str:
    return name.partition("@")[0]


MEMORY = ("peak_activation_bytes", "memory_bytes")


MODELLED = ("latency_ms", "energy_mj", "co2_g_per_million", "ms_per_sample", *MEMORY)
"""What depends on the device. The memory is no sum over groups: its rows are a guess, and `exact` puts it right."""


_UNITS = {
    "bytes": "B", "macs": "MAC", "bops": "BOP", "latency_ms": "ms", "energy_mj": "mJ", "ms_per_sample": "ms",
    "peak_activation_bytes": "B", "memory_bytes": "B", "throughput": "samples/s", "co2_g_per_million": "g",
}  # fmt: skip


def static_measurement(name: str, value: float) -> Measurement:
    """A cost that needs no forward pass. Bytes, MACs and BOPs are counted; the rest is modelled from the profile."""
    base = base_name(name)
    counted = base in ("bytes", "macs", "bops")
    return Measurement(value=value, unit=_UNITS[base], source="measured" if counted else "modelled")


def static_measurements(totals: Mapping[str, float], grid_g_per_kwh: float | None) -> dict[str, Measurement]:
    """All of them, with what follows from them: throughput from the time of a sample, carbon from energy."""
    from ...evaluators import co2_g_per_million

    found = {name: static_measurement(name, value) for name, value in totals.items()}
    for name, value in totals.items():
        base, _, device = name.partition("@")
        if base == "ms_per_sample" and value > 0:
            new = metric_on_device("throughput", device or None)
            found[new] = static_measurement(new, 1000.0 / value)
        if base == "energy_mj" and grid_g_per_kwh is not None:
            new = metric_on_device("co2_g_per_million", device or None)
            found[new] = static_measurement(new, co2_g_per_million(value, grid_g_per_kwh))
    return found


def not_measured(metrics: Mapping[str, Measurement]) -> dict[str, Measurement]:
    """Those that a profile or a fitted model says, which bear their mark wherever they go."""
    return {name: m for name, m in metrics.items() if m.source != "measured"}
