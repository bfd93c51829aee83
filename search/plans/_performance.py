"""The strategy `performance`: least time by the profile, for little more divergence than the sensitivity plan has.

What it does   least modelled latency among the candidates within the limits whose summed divergence is at most
               1 + slack times the least; among equals the fewest bit operations, so that layers with many MACs and
               little sensitivity get the narrow widths
Did not help   a profile on which no width is faster: then the bit operations alone decide
"""

from __future__ import annotations

from ._context import StrategyContext


def performance_levels(context: StrategyContext, slack: float) -> tuple[int, ...]:
    return context.cheapest("latency_ms", slack).levels
