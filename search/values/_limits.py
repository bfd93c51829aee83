"""Limits of metrics: reading them from an expression, and measuring how far trials miss them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

from ...errors import InputError
from ...evaluators import Measurement

PICKS = ("knee", "smallest", "fastest", "best")
"""Names of the points of a front that a user may ask for."""


Bounds: TypeAlias = tuple[float | None, float | None]
"""Lower and upper bound of a metric; None: no bound on that side."""
Limits: TypeAlias = Mapping[str, Bounds]
"""Bounds by name of the metric."""


def parse_bounds(expression: str) -> list[tuple[str, str, float]]:
    """Read bounds: `"accuracy>=0.98,bytes<=5e4"` gives `[("accuracy", ">=", 0.98), ("bytes", "<=", 5e4)]`.

    Raises `InputError` for a part that is no bound.
    """
    bounds = []
    for part in expression.split(","):
        match = re.fullmatch(r"\s*(\w+)\s*(>=|<=|>|<)\s*([-+.\deE_]+)\s*", part)
        value = _number(match[3]) if match else None
        if match is None or value is None:
            raise InputError(
                f"cannot read {part.strip()!r}; expected a point's id, one of {', '.join(PICKS)}, or limits such as "
                "'accuracy>=0.98,latency_ms<=0.5'"
            )
        bounds.append((match[1], match[2], value))
    return bounds


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def violation(metrics: Mapping[str, Measurement], limits: Limits) -> float:
    """Return the sum of the relative violations of the limits: 0 if all are met, infinity if a metric is missing."""
    total = 0.0
    for name, (low, high) in limits.items():
        if name not in metrics:
            return float("inf")
        value = metrics[name].value
        if low is not None and value < low:
            total += (low - value) / (abs(low) or 1.0)
        if high is not None and value > high:
            total += (value - high) / (abs(high) or 1.0)
    return total


def misses(metrics: Mapping[str, Measurement], limits: Limits) -> str:
    """Describe each limit that is missed, as `"accuracy 0.9312 (needs at least 0.95)"`; empty if all are met."""
    parts = []
    for name, (low, high) in limits.items():
        if name not in metrics:
            parts.append(f"{name} was not measured")
            continue
        value = metrics[name].value
        if low is not None and value < low:
            parts.append(f"{name} {value:.6g} (needs at least {low:.6g})")
        if high is not None and value > high:
            parts.append(f"{name} {value:.6g} (needs at most {high:.6g})")
    return ", ".join(parts)
