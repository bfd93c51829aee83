"""The strategy `uniform`: one treatment for all layers, which every other plan and every search has to beat.

What it does   of the space's uniform settings within the limits the dearest in stored bits; with a width asked for,
               those of that width. Among equals the fastest on the profile, then the least error of the weights
Cost           the store alone: no sensitivity table, no evaluation
"""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import LimitsNotMet
from ..allocation import pad
from ..space import uniform_settings
from ..values import Limits
from ._context import MEAN_BITS, StrategyContext, mean_bits, nominal_bits, total


def uniform_levels(context: StrategyContext) -> tuple[int, ...]:
    """Raises `LimitsNotMet` naming the widths that there are, or the least that a uniform setting costs."""
    rows = {name: pad(each) for name, each in context.costs.items()}
    rows[MEAN_BITS] = mean_bits(context.space, context.anatomy)
    errors = pad(context.weight_error)
    settings = [(label, candidate.levels) for label, candidate in uniform_settings(context.space)]
    if context.bits is not None:
        chosen = [s for s in settings if nominal_bits(context.space, context.anatomy, s[1]) == context.bits]
        if not chosen:
            raise LimitsNotMet(
                f"the space has no uniform setting of {context.bits:g} bits; it has {', '.join(s[0] for s in settings)}"
            )
    else:
        named = {name: bound for name, bound in context.limits.items() if name in rows}
        costs = {s: {name: total(rows[name], s[1]) + context.fixed.get(name, 0.0) for name in named} for s in settings}
        chosen = [s for s in settings if _holds(costs[s], named)]
        if not chosen:
            least = {name: min(each[name] for each in costs.values()) for name in named}
            raise LimitsNotMet(
                "no uniform setting is within the limits; the least that one has is "
                + ", ".join(f"{name} {value:.6g}" for name, value in least.items())
            )
    dearest = max(total(rows[MEAN_BITS], levels) for _, levels in chosen)
    equals = [levels for _, levels in chosen if total(rows[MEAN_BITS], levels) >= dearest - 1e-9]
    return min(equals, key=lambda levels: (total(rows["latency_ms"], levels), total(errors, levels)))


def _holds(costs: Mapping[str, float], limits: Limits) -> bool:
    return all(
        (low is None or costs[name] >= low) and (high is None or costs[name] <= high)
        for name, (low, high) in limits.items()
    )
