"""The budget of a plan: the limits that were asked for, or those of the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...errors import InputError
from ..phases import CostModel
from ..task import resolve_limit
from ..values import Limits, parse_limits
from ._context import MEAN_BITS

DEFAULT_BITS = 4


def budget_of(costs: CostModel, bits: float | None, limits: str | Sequence[str] | None) -> tuple[Limits, float | None]:
    """Return (limits in absolute figures, bits if they are the limit). See `plan` for the default.

    Raises `InputError` for bits out of range, and for limits that are not understood.
    """
    layers = costs.problem.anatomy.layers
    weights = sum(layer.n_weights for layer in layers)
    source_bits = sum(layer.source_bits * layer.n_weights for layer in layers) / max(1, weights)
    original = {**costs.original, MEAN_BITS: source_bits}
    if limits:
        senses: dict[str, bool | None] = dict.fromkeys([*costs.rows, MEAN_BITS])
        return parse_limits(limits, original, {**senses, "divergence": False}), None
    if bits is None:
        own = _own_limits(costs, original)
        if own:
            return own, None
        bits = DEFAULT_BITS
    if not 1 <= bits <= 32:
        raise InputError(f"bits must be from 1 to 32, got {bits:g}")
    return {MEAN_BITS: (None, float(bits))}, float(bits)


def _own_limits(costs: CostModel, original: Mapping[str, float]) -> Limits:
    """Return the task's own limits on costs that are known without an evaluation."""
    limits = costs.problem.task.cost_limits
    return {name: resolve_limit(limit, original[name]) for name, limit in limits.items() if name in costs.rows}
