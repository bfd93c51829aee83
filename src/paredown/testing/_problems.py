"""Search problems without a model: layers of unequal size and sensitivity, whose errors do not simply add up."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Literal

import numpy as np

from ..compressors import LayerSpec
from ..evaluators import Measurement
from ..search import Candidate, Completed, EarlyStopped, Failed, Group, Infeasible, SearchContext, SearchSpace, Trial
from ..search.values import Objective, SensitivityTable, hypervolume

BITS: tuple[int, ...] = (32, 8, 7, 6, 5, 4, 3, 2)


class SyntheticProblem:
    """Weight widths for `n_groups` layers; divergence, bytes and MAC-like cost as a quantized network would show them.

    Alone, a layer's divergence is about sensitivity · 4^-bits, with some disorder. Together they add up, times pairwise
    interactions of random sign (`interaction`), and saturate. Everything is a pure function of the constructor's
    arguments and the candidate.

    table_noise  relative noise of the sensitivity table in the context (None: there is no table)
    reach        layers further apart than this do not interact (None: all do)
    n_levels     number of widths of each group, from `BITS` (the first is left alone)
    objectives   2 to 4 of "divergence", "bytes", "bops", "accuracy" (which is maximised)
    """

    def __init__(
        self,
        *,
        n_groups: int = 22,
        n_levels: int = 7,
        seed: int = 0,
        interaction: float = 1.0,
        reach: int | None = None,
        table_noise: float | None = 0.3,
        objectives: tuple[str, ...] = ("divergence", "bytes"),
        limits: dict[str, tuple[float | None, float | None]] | None = None,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.bits = np.array((*BITS[: n_levels - 1], 2) if n_levels > 1 else (32,))
        size = np.exp(rng.normal(0.0, 1.2, n_groups))
        self.bytes = 1e5 * size[:, None] * self.bits[None, :] / 8.0
        self.bops = np.exp(rng.normal(0.0, 1.0, n_groups))[:, None] * self.bits[None, :] * 1e6
        sensitivity = np.exp(rng.normal(0.0, 1.5, n_groups))
        disorder = np.exp(rng.normal(0.0, 0.4, (n_groups, n_levels)))
        self.alone = 8.0 * sensitivity[:, None] * disorder * 4.0 ** -self.bits[None, :].astype(float)
        self.alone[:, 0] = 0.0
        self.pairs = interaction * np.triu(rng.normal(0.0, 1.0, (n_groups, n_groups)), 1)
        if reach is not None:
            self.pairs = np.tril(self.pairs, reach)
        noise = np.exp((table_noise or 0.0) * rng.normal(0.0, 1.0, self.alone.shape))
        self.objectives = tuple(Objective(name=name, maximise=name == "accuracy") for name in objectives)
        self.space = SearchSpace(
            groups=tuple(
                Group(
                    name=f"layer{g}",
                    layers=(f"layer{g}",),
                    levels=tuple(LayerSpec(weight_bits=int(b)) for b in self.bits),
                )
                for g in range(n_groups)
            )
        )
        self.limits = dict(limits or {})
        self.table = SensitivityTable(
            divergence=_rows(self.alone * noise),
            costs={"bytes": _rows(self.bytes), "bops": _rows(self.bops)},
            fixed={"bytes": 4096.0, "bops": 0.0},
            n_samples=64,
        )
        self._has_table = table_noise is not None

    def context(self, seed: int = 0) -> SearchContext:
        return SearchContext(
            space=self.space,
            objectives=self.objectives,
            seed=seed,
            table=self.table if self._has_table else None,
            limits=self.limits,
        )

    def divergence(self, candidate: Candidate) -> float:
        rows = np.arange(len(self.space))
        own = self.alone[rows, list(candidate.levels)]
        total = float(own.sum())
        if total == 0.0:
            return 0.0
        share = own / total
        factor = float(np.exp(np.clip(np.sqrt(share) @ self.pairs @ np.sqrt(share), -2.0, 2.0)))
        return float(4.0 * np.log1p(total * factor / 4.0))

    def metrics(self, candidate: Candidate) -> dict[str, Measurement]:
        divergence = self.divergence(candidate)
        return {
            "divergence": Measurement(value=divergence, split="search", n=512),
            "accuracy": Measurement(value=0.95 * float(np.exp(-divergence)), split="search", n=512),
            "bytes": Measurement(value=self.table.cost_of("bytes", candidate), unit="B"),
            "bops": Measurement(value=self.table.cost_of("bops", candidate)),
        }

    def trial(self, number: int, candidate: Candidate) -> Completed:
        return Completed(number=number, candidate=candidate, kind="mixed", metrics=self.metrics(candidate))

    def dominated(
        self, number: int, candidate: Candidate, *, beaten_by: int = 0, optimism: float = 1.0
    ) -> EarlyStopped:
        """Trial that a race dropped after an eighth of its samples; `optimism` divides the estimated divergence."""
        metrics = self.metrics(candidate)
        true = metrics["divergence"].value
        metrics["divergence"] = Measurement(
            value=true / optimism, low=0.5 * true / optimism, high=2.0 * true / optimism, split="search", n=64
        )
        return EarlyStopped(
            number=number, candidate=candidate, kind="mixed", reason="it was raced out, as told", metrics=metrics,
            beaten_by=beaten_by, samples=64,
        )  # fmt: skip

    def failure(self, number: int, candidate: Candidate, what: Literal["failed", "infeasible"]) -> Trial:
        if what == "failed":
            return Failed(number=number, candidate=candidate, kind="mixed", reason="it crashed, as told", seed=0)
        return Infeasible(number=number, candidate=candidate, kind="mixed", reason="too many bytes, as told")

    def uniform(self) -> list[Candidate]:
        """Baseline candidates, one for each level, all groups alike."""
        return [Candidate(levels=(level,) * len(self.space)) for level in range(len(self.bits))]

    def every_candidate(self) -> Iterator[Candidate]:
        for levels in product(*(range(n) for n in self.space.n_levels)):
            yield Candidate(levels=levels)

    def score(self, candidates: list[Candidate]) -> float:
        """Hypervolume in (log divergence, bytes), each scaled so that the whole box is 1."""
        if not candidates:
            return 0.0
        low = np.log(1e-3)
        high = np.log(8.0)
        divergence = np.array([max(self.divergence(c), 1e-3) for c in candidates])
        cost = np.array([self.table.cost_of("bytes", c) for c in candidates])
        cheapest, dearest = self.bytes.min(axis=1).sum(), self.bytes.max(axis=1).sum()
        points = np.column_stack(
            [(np.log(divergence) - low) / (high - low), (cost - 4096.0 - cheapest) / (dearest - cheapest)]
        )
        return hypervolume(points, np.ones(2))


def _rows(values: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in values)
