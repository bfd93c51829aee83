"""Objectives and limits on each device of a task: a cost that depends on a further device has its name behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..task import resolve_limit
from ..values import MODELLED, Bounds, Limits, Objective, metric_on_device

if TYPE_CHECKING:
    from ..task import Task


def guides_of(guide: Sequence[Objective], devices: Sequence[str]) -> list[tuple[Objective, ...]]:
    """Return the guide on each device. The first device keeps the plain names."""
    return [tuple(replace(o, name=_named(o.name, n, device)) for o in guide) for n, device in enumerate(devices)]


def limits_of(task: Task, limits: Limits, original: Mapping[str, float], devices: Sequence[str]) -> list[Limits]:
    """Return the limits on each device. A share of the original is a share of its cost on that device.

    limits    the resolved limits on the first device
    original  metric -> the original's value; costs on further devices by their full names
    """
    found: list[Limits] = []
    for n, device in enumerate(devices):
        names = {name: _named(name, n, device) for name in limits}
        costs = {name: original[there] for name, there in names.items() if there != name and there in original}
        bounds = limits_elsewhere(task, limits, costs)
        found.append({there: bounds[name] for name, there in names.items()})
    return found


def limits_elsewhere(task: Task, limits: Limits, original: Mapping[str, float]) -> dict[str, Bounds]:
    """Return the limits with the shares of the original resolved against its costs on another device.

    limits    the resolved limits on the first device
    original  cost that depends on the device -> the original's value there
    """
    bounds = dict(limits)
    for name, limit in task.cost_limits.items():
        if name in MODELLED and limit.max_ratio is not None and name in original:
            bounds[name] = (bounds[name][0], resolve_limit(limit, original[name])[1])
    return bounds


def _named(name: str, n: int, device: str) -> str:
    return metric_on_device(name, device) if n and name in MODELLED else name
