"""Objectives of a task, and the objectives that guide its searcher."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...errors import TaskError
from ..values import Objective

if TYPE_CHECKING:
    from ..task import Task

SAME_OUTPUTS = 1e-4
"""Mean divergence, in nats, below which a search does not tell candidates apart: ten thousand samples would have to be
seen before they speak for the original by one nat."""


def objectives_of(task: Task, metric: str, maximise: bool) -> tuple[Objective, ...]:
    """Return the objectives of the task, the quality first, whatever their order in the task.

    metric    name of the quality metric
    maximise  True if the metric is to be maximised

    Raises `TaskError` for a task whose objectives have neither the metric nor the divergence.
    """
    names = task.objective_names(metric)
    quality = [name for name in names if name in (metric, "divergence")]
    if not quality:
        raise TaskError(f"[objectives] names must have {metric!r} or 'divergence' among them, got {', '.join(names)}")
    ordered = [*quality, *(name for name in names if name not in quality)]
    return tuple(
        Objective(name=name, maximise=(maximise and name == metric) or name == "throughput") for name in ordered
    )


def guide_of(task: Task, objectives: Sequence[Objective], metric: str, divergence: str) -> tuple[Objective, ...]:
    """Return the objectives that the searcher minimises in place of those of the task.

    metric      name of the quality metric
    divergence  "kl" or "mse"
    """
    quality = None
    if task.quality.guide == "divergence":
        quality = Objective(name="divergence", indifference_threshold=_indifference_threshold(task, divergence))
    return tuple(_guide(objective, metric, quality) for objective in objectives)


def _guide(objective: Objective, metric: str, quality: Objective | None) -> Objective:
    """Return the objective to minimise in place of one of the task. `quality`, if any, replaces the metric."""
    if objective.name == "throughput":
        return Objective(name="ms_per_sample")
    return quality if quality is not None and objective.name == metric else objective


def _indifference_threshold(task: Task, divergence: str) -> float:
    """Return `SAME_OUTPUTS`, or the limit of the task where that is less. Only nats mean the same in every model."""
    if divergence != "kl":
        return -math.inf
    limit = task.cost_limits.get("divergence")
    return SAME_OUTPUTS if limit is None or limit.max is None else min(SAME_OUTPUTS, limit.max)
