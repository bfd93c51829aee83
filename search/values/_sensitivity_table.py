"""The sensitivity table: the divergence and the costs of each level alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ._output_perturbations import OutputPerturbations
from ._space import Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityTable:
    """The divergence and the costs of each (group, level) alone.

    divergence  per group, per level: mean divergence from the original's outputs (0 for the neutral level)
    costs       metric name -> per group, per level: that group's share of the metric (bytes, macs, latency_ms, …)
    fixed       metric name -> the part that no decision changes
    n_samples   samples that most rows were measured on
    stderr      per group, per level: standard error of the divergence, NaN where it is not known; () if of none
    n           per group, per level: samples that it was measured on, 0 where it was not measured; () if not known
    perturbations  of the outputs by each (group, level); None if they are not known
    proxies     name -> per group, per level: what foretells the divergence, in a unit of its own, without a measurement
                of the level; NaN where it says nothing. The first has the least noise
    """

    divergence: tuple[tuple[float, ...], ...]
    costs: Mapping[str, tuple[tuple[float, ...], ...]]
    fixed: Mapping[str, float]
    n_samples: int = 0
    stderr: tuple[tuple[float, ...], ...] = ()
    n: tuple[tuple[int, ...], ...] = ()
    perturbations: OutputPerturbations | None = field(default=None, compare=False, repr=False)
    proxies: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)

    def cost_of(self, name: str, candidate: Candidate) -> float:
        """Return a cost of the candidate: what is fixed, and the sum over its groups."""
        rows = self.costs[name]
        return self.fixed.get(name, 0.0) + sum(row[level] for row, level in zip(rows, candidate.levels, strict=True))

    def divergence_of(self, candidate: Candidate) -> float:
        """Return the additive estimate of the divergence: the sum over the groups."""
        return sum(row[level] for row, level in zip(self.divergence, candidate.levels, strict=True))
