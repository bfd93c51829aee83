"""The strategy `energy`: least energy by the profile, for little more divergence than the sensitivity plan has.

What it does   as `_performance`, with the profile's energies (arithmetic, traffic, idling) in the place of its times
Bad input      a profile without energies: an error that names it
"""

from __future__ import annotations

from ._context import StrategyContext


def energy_levels(context: StrategyContext, slack: float) -> tuple[int, ...]:
    return context.cheapest("energy_mj", slack).levels
