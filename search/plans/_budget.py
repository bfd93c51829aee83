"""What a plan may spend: the limits that were asked for, or those of the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...errors import InputError
from ..phases import SearchSession
from ..values import Limits, parse_limits
from ._context import MEAN_BITS

DEFAULT_BITS = 4


def budget_of(
    session: SearchSession, bits: float | None, limits: str | Sequence[str] | None
) -> tuple[Limits, float | None]:
    """What was asked for, in absolute figures: (limits, bits if it is these). See `plan` for the default."""
    original = {**session.original_costs, MEAN_BITS: 32.0}
    if limits:
        senses: dict[str, bool | None] = dict.fromkeys([*session.costs, MEAN_BITS])
        return parse_limits(limits, original, {**senses, "divergence": False}), None
    if bits is None:
        own = _own_limits(session, original)
        if own:
            return own, None
        bits = DEFAULT_BITS
    if not 1 <= bits <= 32:
        raise InputError(f"bits must be from 1 to 32, got {bits:g}")
    return {MEAN_BITS: (None, float(bits))}, float(bits)


def _own_limits(session: SearchSession, original: Mapping[str, float]) -> Limits:
    found = {}
    for name, limit in session.task.cost_limits.items():
        if name in session.costs:
            tops = [limit.max, None if limit.max_ratio is None else limit.max_ratio * original[name]]
            found[name] = (limit.min, min((top for top in tops if top is not None), default=None))
    return found
