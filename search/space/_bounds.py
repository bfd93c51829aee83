"""Limits of a task against the least and the most that the space can reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...errors import TaskError
from ..task import resolve_limit
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
        _, top = resolve_limit(limit, original)
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
