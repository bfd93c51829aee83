"""The context of a strategy: the space, the cost of each level, and the table, in the form of a 0-1 programme."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ..._arrays import FloatArray
from ...compressors import FLOAT_BITS
from ...errors import InputError
from ..allocation import Programme, Solution, pad, solve
from ..values import Limits, is_structural, of_first_device

if TYPE_CHECKING:
    from ...compressors import Anatomy, LayerInfo, LayerSpec
    from ..evaluation import LevelCosts
    from ..phases import CostModel
    from ..values import SearchSpace, SensitivityTable

MEAN_BITS = "mean_bits"
"""Stored bits a weight, over all weights of the space: width × share of nonzero weights × rank. Scales do not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyContext:
    """Everything that a strategy may use.

    limits        name -> (least, most), of costs, "mean_bits" and "divergence"
    bits          width that was asked for, where the limit is one on the mean bits
    costs, fixed  rows of costs, and the costs that every candidate pays (`CostModel`)
    weight_error  ‖W-Ŵ‖²/‖W‖² for each group and level, at its worst layer
    measure       measures the sensitivity table; called once, by strategies that use it
    more          name -> further rows and their fixed cost, worked out on demand: the energy
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
    _measured: list[SensitivityTable] = field(default_factory=list, init=False, compare=False, repr=False)

    @property
    def table(self) -> SensitivityTable:
        """The sensitivity table, measured at the first use."""
        if not self._measured:
            self._measured.append(self.measure())
        return self._measured[0]

    @property
    def has_table(self) -> bool:
        """True once the table was used."""
        return bool(self._measured)

    def programme(self, minimise: str, *further: str) -> Programme:
        """Programme of all costs and the table, within the limits, with `further` rows of `more`.

        Metrics on further devices are left out.
        """
        metrics = {name: pad(rows) for name, rows in of_first_device(self.costs).items()}
        fixed = {name: value for name, value in self.fixed.items() if name in metrics}
        metrics |= {MEAN_BITS: mean_bits(self.space, self.anatomy), "divergence": pad(self.table.divergence)}
        for name in further:
            if name not in metrics:
                metrics[name], fixed[name] = self.more[name]()
        return Programme(metrics=metrics, minimise=minimise, limits=self.limits, fixed=fixed)

    def cheapest(self, cost: str, slack: float) -> Solution:
        """Solve for the least cost with at most 1 + slack times the least divergence within the limits.

        Among equals the candidate with the fewest bit operations (MACs × widths) is taken. Raises `LimitsNotMet` where
        nothing meets the limits.
        """
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
    """Return each level's share of the mean bits a weight, (groups, most levels). A shared weight counts once."""
    sizes = [max(anatomy[fqn].n_weights for fqn in group.layers) for group in space.groups]
    total = float(sum(sizes))
    rows = [
        [stored_bits(spec, anatomy[g.layers[0]]) * size / total for spec in g.levels]
        for g, size in zip(space.groups, sizes, strict=True)
    ]
    return pad(rows)


def stored_bits(spec: LayerSpec, layer: LayerInfo) -> float:
    """Stored bits of one weight on average; a weight in floating point has those of its source."""
    bits = layer.source_bits if spec.weight_bits == FLOAT_BITS else spec.weight_bits
    return bits * (1.0 - spec.sparsity) * spec.rank


def nominal_bits(space: SearchSpace, anatomy: Anatomy, levels: tuple[int, ...]) -> int:
    """Width that most weights of a candidate have."""
    count: Counter[int] = Counter()
    for group, level in zip(space.groups, levels, strict=True):
        count[group.levels[level].weight_bits] += max(anatomy[fqn].n_weights for fqn in group.layers)
    return count.most_common(1)[0][0]


def strategy_context_of(
    costs: CostModel, limits: Limits, bits: float | None, measure: Callable[[], SensitivityTable | None]
) -> StrategyContext:
    """Make the context of a strategy.

    measure  measures the sensitivity table, or gives the one that there is; called at most once. None is refused with
             `InputError`
    Raises `InputError` for a space with structure: strategies choose the treatment of layers, and not what is removed.
    """
    problem = costs.problem
    if removed := [group.name for group in problem.space.groups if is_structural(group.name)]:
        raise InputError(
            f"a plan treats layers and removes nothing, and this space offers to remove {removed[0]}; leave channels, "
            "heads, neurons, width, units, experts and blocks out of [space], or search"
        )

    def measured() -> SensitivityTable:
        table = measure()
        if table is None:
            raise InputError(
                f"there is no sensitivity table: the searcher {problem.task.search.searcher} uses none, or the time "
                "was too short for it; take the searcher evolution, or the plan uniform or fp16-mse"
            )
        return table

    def energy() -> tuple[FloatArray, float]:
        device = replace(problem.devices[0], names=("latency_ms", "energy_mj"))
        rows = device.rows(problem.anatomy, problem.space)
        return pad(rows.costs["energy_mj"]), rows.fixed["energy_mj"]

    return StrategyContext(
        space=problem.space, anatomy=problem.anatomy, limits=limits, bits=bits, costs=costs.rows, fixed=costs.fixed,
        weight_error=costs.weight_error, measure=measured, more={"energy_mj": energy},
    )  # fmt: skip


def total(rows: FloatArray, levels: tuple[int, ...]) -> float:
    """Sum of the rows, shape (groups, most levels), at one level for each group."""
    return float(rows[np.arange(len(levels)), levels].sum())
