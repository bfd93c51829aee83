"""Bits where they matter: the least summed divergence within the limits.

What it does   the sensitivity table (each level of each layer alone, KL of the outputs) and the exact 0-1 programme
Source         the first two steps of the search's own ladder (`_table`, `_programme`), without the rest
Did not help   layers whose errors add up in the outputs: the sum of the table's rows does not know them; a search does
"""

from __future__ import annotations

from ..allocation import solve
from ._context import StrategyContext


def sensitivity_levels(context: StrategyContext) -> tuple[int, ...]:
    return solve(context.programme("divergence")).levels
