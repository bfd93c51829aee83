"""Exact allocations from the sensitivity table: every budget at once, or several limits together.

`_lagrangian.py` sweeps the convex hull, `_knapsack.py` is a dynamic programme over one cost, `_milp.py` keeps several
limits. All are plain functions of arrays. The room knows `values`. A new solver is one file here.
"""

from ._knapsack import Knapsack, knapsack
from ._lagrangian import lower_hull, pad, padded, sweep, sweep_levels
from ._milp import TIME_LIMIT_S, Programme, Solution, solve

__all__ = [
    "TIME_LIMIT_S",
    "Knapsack",
    "Programme",
    "Solution",
    "knapsack",
    "lower_hull",
    "pad",
    "padded",
    "solve",
    "sweep",
    "sweep_levels",
]
