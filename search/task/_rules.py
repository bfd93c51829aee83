"""Rules that pydantic cannot check on one field: names that must be known, limits that exclude each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._sections import Limit

_RANGES = {
    "accuracy": (0.0, 1.0),
    "cosine": (-1.0, 1.0),
    "perplexity": (1.0, math.inf),
    "perplexity_per_sequence": (1.0, math.inf),
    "mse": (0.0, math.inf),
    "mean_iou": (0.0, 1.0),
    "f1": (0.0, 1.0),
    "f1_micro": (0.0, 1.0),
    "average_precision": (0.0, 1.0),
    "spearman": (-1.0, 1.0),
    "wer": (0.0, math.inf),
    "hit_rate_at_10": (0.0, 1.0),
    "ndcg_at_10": (0.0, 1.0),
    "divergence": (0.0, math.inf),
}
"""Name -> (least, greatest) possible value."""


def nearest(name: str, known: tuple[str, ...] | list[str]) -> str:
    """End of a message: `; did you mean 'bytes'?` or `; known are …`."""
    if close := get_close_matches(name, known, n=1, cutoff=0.6):
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(known)}" if known else ""


def check_names(names: tuple[str, ...], *, known: tuple[str, ...], where: str) -> None:
    """Raise `ValueError` for a name that is unknown or comes twice."""
    for position, name in enumerate(names):
        if name not in known:
            raise ValueError(f"{where}: {name!r} is not a metric of this task{nearest(name, known)}")
        if name in names[:position]:
            raise ValueError(f"{where}: {name!r} is named twice; each once")


def check_limit(name: str, limit: Mapping[str, float | None], *, metric: str, costs: tuple[str, ...]) -> None:
    """Raise `ValueError` for a limit that no point can keep, or that is empty. `limit` has the keys of `Limit`."""
    where = f"limits.{name}"
    if all(value is None for value in limit.values()):
        raise ValueError(f"{where}: says nothing; give min, max, max_drop or max_ratio, or leave it out")
    low, high = limit["min"], limit["max"]
    if low is not None and high is not None and low > high:
        raise ValueError(f"{where}: min = {low:g} and max = {high:g} exclude each other; min must not be above max")
    if limit["max_drop"] is not None and name != metric:
        raise ValueError(f"{where}: max_drop is for the metric ({metric}); use max or max_ratio for {name}")
    if limit["max_ratio"] is not None and name not in costs:
        raise ValueError(f"{where}: max_ratio is for a cost ({', '.join(costs)}); use min, max or max_drop for {name}")
    if name in costs and high is not None and high <= 0:
        raise ValueError(f"{where}: max must be more than zero, got {high:g}; no model costs nothing")
    least, most = _RANGES.get(name, (-math.inf, math.inf))
    if (low is not None and low > most) or (high is not None and high < least):
        asked = f"min = {low:g}" if low is not None and low > most else f"max = {high:g}"
        raise ValueError(
            f"{where}: {asked} can never be met; {name} lies between {least:g} and {most:g}{_percent(name, low)}"
        )


def _percent(name: str, low: float | None) -> str:
    return (
        f" (a fraction: {low / 100:g}, not {low:g} %)"
        if name == "accuracy" and low is not None and 1 < low <= 100
        else ""
    )


def check_throughput(limit: Limit, *, others: tuple[str, ...]) -> None:
    """Raise `ValueError` for a limit that does not apply to a rate."""
    if limit.max_ratio is not None or limit.max_drop is not None:
        raise ValueError("limits.throughput: takes min (samples a second, at least), and no ratio or drop")
    if any(bound is not None and bound <= 0 for bound in (limit.min, limit.max)):
        raise ValueError("limits.throughput: must be more than zero samples a second")
    if "ms_per_sample" in others:
        raise ValueError("limits: throughput and ms_per_sample are one thing; limit one of them")


def per_sample(limit: Limit) -> Limit:
    """Limit in milliseconds a sample from one in samples a second; the least becomes the most."""
    low, high = limit.min, limit.max
    return type(limit)(min=1000.0 / high if high else None, max=1000.0 / low if low else None)
