"""Which strategies there are, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ._context import StrategyContext
from ._energy import energy_levels
from ._performance import performance_levels
from ._sensitivity import sensitivity_levels
from ._uniform import uniform_levels

SLACK = 0.25
"""How much more divergence than the least "performance" and "energy" may spend."""

Levels: TypeAlias = tuple[int, ...]

BY_LEVELS: dict[str, Callable[[StrategyContext, float], Levels]] = {
    "uniform": lambda ground, slack: uniform_levels(ground),
    "sensitivity": lambda ground, slack: sensitivity_levels(ground),
    "performance": performance_levels,
    "energy": energy_levels,
}
"""Those that choose among the levels of the task's space."""

STRATEGIES = (*BY_LEVELS, "fp16-mse")
