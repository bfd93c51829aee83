"""Limits of a task against the original's values and against the least and most that the space can reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ...errors import TaskError
from ..values import MODELLED

if TYPE_CHECKING:
    from ..task import Task


def check_reachable(
    task: Task, least: Mapping[str, float], most: Mapping[str, float], *, profile: str | None = None,
    predicted: bool = False,
) -> None:  # fmt: skip
    """Refuse limits that no candidate can keep; `least` and `most` are the bounds of each cost over the whole space.

    profile    name of the device's profile; None: the task's first
    predicted  whether the device's latency is predicted from measurements
    Only costs that are known without running anything are checked. Raises `TaskError` naming the limit and the bound.
    """
    for name, limit in task.cost_limits.items():
        original = most.get(name)
        top = limit.max
        if limit.max_ratio is not None and original is not None:
            top = limit.max_ratio * original if top is None else min(top, limit.max_ratio * original)
        if top is not None and name in least and least[name] > top:
            how = (
                "predicted from measurements"
                if predicted and name == "latency_ms"
                else f"modelled from the profile {profile or task.hardware.profile_name}"
            )
            by = f" ({how})" if name in MODELLED else ""
            raise TaskError(
                f"limits.{name}: at most {top:g} is asked for, and the least that this space can reach is "
                f"{least[name]:g}{by}; raise the limit, or "
                "allow stronger levels in [space]"
            )
        if limit.min is not None and original is not None and limit.min > original:
            raise TaskError(
                f"limits.{name}: at least {limit.min:g} is asked for, and the most that this model has is "
                f"{original:g}; lower min"
            )


def bounds(
    task: Task, original: Mapping[str, float], *, maximise: bool
) -> dict[str, tuple[float | None, float | None]]:
    """Name -> (lower or None, upper or None), with relative limits worked out against the original's values.

    Where the task does not limit its metric, `quality.max_loss` does, unless the original is at or below zero.

    maximise  whether the task's metric is maximised
    Raises `TaskError` where a relative and an absolute limit exclude each other.
    """
    found: dict[str, tuple[float | None, float | None]] = {}
    for name, limit in task.cost_limits.items():
        low, high = limit.min, limit.max
        if limit.max_drop is not None:
            if maximise:
                low = _tighter(max, low, original[name] - limit.max_drop)
            else:
                high = _tighter(min, high, original[name] + limit.max_drop)
        if limit.max_ratio is not None:
            high = _tighter(min, high, original[name] * limit.max_ratio)
        if low is not None and high is not None and low > high:
            raise TaskError(
                f"limits.{name}: with the original at {original[name]:g} it must be at least {low:g} and at "
                f"most {high:g}; these exclude each other"
            )
        found[name] = (low, high)
    name, loss = task.metric_name, task.quality.max_loss
    if name not in found and loss < 1.0 and original.get(name, 0.0) > 0.0:
        found[name] = (original[name] * (1.0 - loss), None) if maximise else (None, original[name] / (1.0 - loss))
    return found


def _tighter(choose: Callable[[float, float], float], given: float | None, derived: float) -> float:
    return derived if given is None else choose(given, derived)
