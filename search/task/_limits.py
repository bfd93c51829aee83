"""Limits of a task as numbers: relative limits are resolved against the original model, here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...errors import TaskError
from ..values import Bounds

if TYPE_CHECKING:
    from ._sections import Limit
    from ._task import Task


def resolve_limit(limit: Limit, original: float | None, *, maximise: bool = False) -> Bounds:
    """Return (least, greatest) value that a limit allows; None: no bound on that side.

    original  the original's value of the metric; None: it is not known, and relative limits are left out
    maximise  True for a metric that is to be high, which `max_drop` bounds from below
    """
    low, high = limit.min, limit.max
    if original is None:
        return low, high
    if limit.max_ratio is not None:
        high = _least(high, limit.max_ratio * original)
    if limit.max_drop is not None and maximise:
        floor = original - limit.max_drop
        low = floor if low is None else max(low, floor)
    elif limit.max_drop is not None:
        high = _least(high, original + limit.max_drop)
    return low, high


def resolve_limits(task: Task, original: Mapping[str, float], *, maximise: bool) -> dict[str, Bounds]:
    """Return metric -> (least, greatest) value for every limit of a task.

    A task that does not limit its metric is held to `quality.max_loss`, unless the original is at or below zero.

    original  metric -> the original's value
    maximise  True where the task's metric is to be high
    Raises `TaskError` where a relative and an absolute limit exclude each other.
    """
    found: dict[str, Bounds] = {}
    for name, limit in task.cost_limits.items():
        low, high = resolve_limit(limit, original.get(name), maximise=maximise)
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


def _least(bound: float | None, other: float) -> float:
    return other if bound is None else min(bound, other)
