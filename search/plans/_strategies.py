"""The list of strategies, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ._context import StrategyContext
from ._energy import energy_levels
from ._performance import performance_levels
from ._sensitivity import sensitivity_levels
from ._uniform import uniform_levels

SLACK = 0.25
"""Share by which the divergence of "performance" and "energy" may exceed the least."""

Levels: TypeAlias = tuple[int, ...]

BY_LEVELS: dict[str, Callable[[StrategyContext, float], Levels]] = {
    "uniform": lambda context, slack: uniform_levels(context),
    "sensitivity": lambda context, slack: sensitivity_levels(context),
    "performance": performance_levels,
    "energy": energy_levels,
}
"""Strategies that choose among the levels of the task's space, as functions of the context and the slack."""

STRATEGIES = (*BY_LEVELS, "fp16-mse")
