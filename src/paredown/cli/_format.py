"""Formatting of numbers for people."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..evaluators import Measurement

DASH = "–"

FRACTIONS = ("accuracy",)
"""Metrics that are fractions and are shown in percent, whatever their unit is."""

_STEPS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def value(name: str, number: float, unit: str = "") -> str:
    """Format a value of the metric `name` with its unit: `98.52 %`, `12.3 kB`, `0.241 ms`, `3.41 M`."""
    if not math.isfinite(number):
        return DASH
    if is_fraction(name, unit):
        return f"{100 * number:.2f} %"
    if name == "bytes" or name.endswith("_bytes") or unit in ("B", "bytes"):
        return n_bytes(number)
    if unit == "ms" or name.endswith("_ms"):
        return f"{significant(number)} ms"
    if name in ("macs", "bops"):
        return count(number)
    return f"{significant(number, 4)} {unit}".strip() if unit not in ("", "1", name) else significant(number, 4)


def interval(name: str, low: float | None, high: float | None, unit: str = "") -> str:
    """Format an interval in the unit of `value`: `[98.1, 98.9]`; empty for an exact value, `?` for an unknown end."""
    known = [bound for bound in (low, high) if bound is not None]
    if not known or not all(math.isfinite(bound) for bound in known):
        return ""
    as_percent = is_fraction(name, unit)
    shown = ("?" if x is None else f"{100 * x:.2f}" if as_percent else significant(x) for x in (low, high))
    return f"[{', '.join(shown)}]"


def measurement(name: str, measured: Measurement | None) -> str:
    """Format a value and its interval; a dash if there is none."""
    if measured is None:
        return DASH
    span = interval(name, measured.low, measured.high, measured.unit)
    return f"{value(name, measured.value, measured.unit)} {span}".rstrip()


def is_fraction(name: str, unit: str = "") -> bool:
    """Tell whether the metric `name` is a fraction of one, and is shown in percent."""
    return name in FRACTIONS or unit == "fraction"


def n_bytes(number: float) -> str:
    """Format bytes in decimal units: 1 kB is 1,000 bytes."""
    return f"{number:.0f} B" if abs(number) < 1000 else f"{count(number)}B"


def count(number: float) -> str:
    """Format a count with a decimal prefix: `332 k`, `40.8 M`."""
    for step, prefix in _STEPS:
        if abs(number) >= step:
            return f"{significant(number / step)} {prefix}"
    return f"{number:g}"


def significant(number: float, digits: int = 3) -> str:
    """Format with `digits` significant digits; no scientific notation between 1e-4 and 1e6."""
    if number == 0 or not math.isfinite(number):
        return f"{number:g}"
    if not 1e-4 <= abs(number) < 1e6:
        return f"{number:.{digits - 1}e}"
    return f"{number:.{max(0, digits - 1 - math.floor(math.log10(abs(number))))}f}"


def times(ratio: float | None) -> str:
    """Format a factor: `4.02×`."""
    return DASH if ratio is None or not math.isfinite(ratio) else f"{significant(ratio)}×"


def seconds(number: float | None) -> str:
    """Format a duration: `8 s`, `2 m 05 s`, `3 h 12 m`."""
    if number is None or not math.isfinite(number):
        return DASH
    whole = max(0, round(number))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
