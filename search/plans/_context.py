"""What a strategy may look at: the space, what each level costs, and the table, in the form of a 0-1 programme."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ..._arrays import FloatArray
from ...errors import InputError
from ..allocation import Programme, Solution, pad, solve
from ..values import Limits, of_first_device

if TYPE_CHECKING:
    from ...compressors import Anatomy, LayerSpec
    from ..evaluation import LevelCosts
    from ..phases import SearchSession
    from ..values import SearchSpace, SensitivityTable

MEAN_BITS = "mean_bits"
"""Stored bits a weight, over all weights of the space: width × share that is not zero × rank. Scales do not count."""


@dataclass(slots=True, kw_only=True)
class StrategyContext:
    """limits        name -> (least, most), of costs, "mean_bits" and "divergence"
    bits          the width that was asked for, where the limit is one on the mean bits
    costs, fixed  as `static_costs` gives them
    weight_error  per group and level, ‖W-Ŵ‖²/‖W‖² at its worst layer
    measure       measures the sensitivity table; called once, by strategies that want it
    more          further rows by name, worked out where they are asked for: the energy
    """

    space: SearchSpace
    anatomy: Anatomy
    limits: Limits
    bits: float | None
    costs: LevelCosts
    fixed: Mapping[str, float]
    weight_error: tuple[tuple[float, ...], ...]
    measure: Callable[[], SensitivityTable]
    more: Mapping[str, Callable[[], tuple[FloatArray, float]]] = field(default_factory=dict)
    _table: SensitivityTable | None = None

    @property
    def table(self) -> SensitivityTable:
        if self._table is None:
            self._table = self.measure()
        return self._table

    @property
    def has_table(self) -> bool:
        return self._table is not None

    def programme(self, minimise: str, *further: str) -> Programme:
        """All costs and the table, within the limits; `further` rows of `more` beside them."""
        metrics = {name: pad(rows) for name, rows in of_first_device(self.costs).items()}
        fixed = {name: value for name, value in self.fixed.items() if name in metrics}
        metrics |= {MEAN_BITS: mean_bits(self.space, self.anatomy), "divergence": pad(self.table.divergence)}
        for name in further:
            if name not in metrics:
                metrics[name], fixed[name] = self.more[name]()
        return Programme(metrics=metrics, minimise=minimise, limits=self.limits, fixed=fixed)

    def cheapest(self, cost: str, slack: float) -> Solution:
        """Of the candidates within the limits whose summed divergence is at most 1 + slack times the least there, the
        one that costs least; among equals the one with the fewest bit operations (MACs × widths)."""
        programme = self.programme("divergence", cost)
        best = solve(programme)
        spent = {**programme.limits, "divergence": self._spend(best.totals["divergence"] * (1.0 + slack))}
        first = solve(replace(programme, minimise=cost, limits=spent))
        most = first.totals[cost] * (1.0 + 1e-6)
        low, high = spent.get(cost, (None, None))
        within = {**spent, cost: (low, most if high is None else min(high, most))}
        return solve(replace(programme, minimise="bops", limits=within))

    def _spend(self, divergence: float) -> tuple[float | None, float]:
        low, high = self.limits.get("divergence", (None, None))
        return low, divergence if high is None else high


def mean_bits(space: SearchSpace, anatomy: Anatomy) -> FloatArray:
    """Shape (groups, most levels): each level's share of the mean bits a weight. A shared weight counts once."""
    sizes = [max(anatomy[fqn].n_weights for fqn in group.layers) for group in space.groups]
    total = float(sum(sizes))
    rows = [
        [stored_bits(spec) * size / total for spec in g.levels] for g, size in zip(space.groups, sizes, strict=True)
    ]
    return pad(rows)


def stored_bits(spec: LayerSpec) -> float:
    return spec.weight_bits * (1.0 - spec.sparsity) * spec.rank


def nominal_bits(space: SearchSpace, anatomy: Anatomy, levels: tuple[int, ...]) -> int:
    """The width that most weights of a candidate have."""
    count: Counter[int] = Counter()
    for group, level in zip(space.groups, levels, strict=True):
        count[group.levels[level].weight_bits] += max(anatomy[fqn].n_weights for fqn in group.layers)
    return count.most_common(1)[0][0]


def strategy_context_of(
    session: SearchSession, limits: Limits, bits: float | None, table: SensitivityTable | None = None
) -> StrategyContext:
    """Of a sitting whose store is built; `table` where it was measured already."""
    from ..phases import measure_table

    def measure() -> SensitivityTable:
        measured = measure_table(session)
        if measured is None:
            raise InputError(
                f"there is no sensitivity table: the searcher {session.task.search.searcher} uses none, or the time "
                "was too short for it; take the searcher evolution, or the plan uniform or fp16-mse"
            )
        return measured

    def energy() -> tuple[FloatArray, float]:
        device = replace(session.problem.devices[0], names=("latency_ms", "energy_mj"))
        rows = device.rows(session.problem.anatomy, session.problem.space)
        return pad(rows.costs["energy_mj"]), rows.fixed["energy_mj"]

    errors = session.state.facts["weight_error"]
    return StrategyContext(
        space=session.problem.space, anatomy=session.problem.anatomy, limits=limits, bits=bits, costs=session.costs,
        fixed=session.fixed, weight_error=tuple(tuple(row) for row in errors), measure=measure,
        more={"energy_mj": energy}, _table=table,
    )  # fmt: skip


def total(rows: FloatArray, levels: tuple[int, ...]) -> float:
    return float(rows[np.arange(len(levels)), levels].sum())
