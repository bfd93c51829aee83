"""Configs by a rule, without a search: baselines, and the first proposals of a search.

Each strategy is one function of a `StrategyContext` in one file. It knows `phases` (for the table) and below.
Begin with `_strategies.py`, which lists them. `paredown.plan` in `search/_plan.py` is the public call.
"""

from ._budget import budget_of
from ._cards import CARDS
from ._context import MEAN_BITS, StrategyContext, mean_bits, stored_bits, strategy_context_of, total
from ._fp16_mse import THRESHOLD, fp16_mse_assignment
from ._performance import performance_levels
from ._seeds import planned_seeds
from ._sensitivity import sensitivity_levels
from ._strategies import BY_LEVELS, SLACK, STRATEGIES
from ._uniform import uniform_levels

__all__ = [
    "BY_LEVELS",
    "CARDS",
    "MEAN_BITS",
    "SLACK",
    "STRATEGIES",
    "THRESHOLD",
    "StrategyContext",
    "budget_of",
    "fp16_mse_assignment",
    "mean_bits",
    "performance_levels",
    "planned_seeds",
    "sensitivity_levels",
    "stored_bits",
    "strategy_context_of",
    "total",
    "uniform_levels",
]
