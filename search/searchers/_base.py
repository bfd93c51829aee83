"""What a searcher is, and what it is told."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .._space import Candidate, SearchSpace
from .._trial import Completed, Dominated, Trial
from ._superposition import OutputShifts


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A metric to be minimised or maximised. Inside, everything is minimised: the sign is turned once, in `signed`.

    good_enough  where it is minimised, the value below which none is better than another: `key` gives this one for all
                 of them, so that nothing is paid for what no one can tell apart
    """

    name: str
    maximise: bool = False
    good_enough: float = -math.inf

    def key(self, value: float) -> float:
        """The value as it is judged."""
        return max(self.signed(value), self.good_enough)

    def signed(self, value: float) -> float:
        """The value as it was measured, minimised."""
        return -value if self.maximise else value


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityTable:
    """What each (group, level) alone does to the outputs, and what it costs.

    divergence  per group, per level: mean divergence from the original's outputs (0 for the neutral level)
    costs       metric name -> per group, per level: that group's share of the metric (bytes, macs, latency_ms, …)
    fixed       metric name -> what is paid whatever is chosen
    n_samples   of most rows
    stderr      per group, per level: standard error of the divergence, NaN where it is not known; () if of none
    n           per group, per level: samples that it was measured on, 0 where it was not measured; () if not known
    shifts      in which direction each (group, level) pushes the outputs; None where that is not known
    """

    divergence: tuple[tuple[float, ...], ...]
    costs: Mapping[str, tuple[tuple[float, ...], ...]]
    fixed: Mapping[str, float]
    n_samples: int = 0
    stderr: tuple[tuple[float, ...], ...] = ()
    n: tuple[tuple[int, ...], ...] = ()
    shifts: OutputShifts | None = field(default=None, compare=False, repr=False)

    def cost_of(self, name: str, candidate: Candidate) -> float:
        rows = self.costs[name]
        return self.fixed.get(name, 0.0) + sum(row[level] for row, level in zip(rows, candidate.levels, strict=True))

    def divergence_of(self, candidate: Candidate) -> float:
        """The additive estimate: the sum of the single-layer divergences."""
        return sum(row[level] for row, level in zip(self.divergence, candidate.levels, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchContext:
    """Everything that a searcher may know when it is made.

    objectives  what it should spread a front over; the quality objective comes first. By default the quality objective
                is "divergence" (to the original's outputs: smoother than accuracy, it tells close candidates apart)
    table       None when the task skips the table, or the searcher did not ask for one
    limits      metric name -> (lower bound or None, upper bound or None)
    """

    space: SearchSpace
    objectives: tuple[Objective, ...]
    seed: int
    table: SensitivityTable | None = None
    limits: Mapping[str, tuple[float | None, float | None]]

    def vector(self, trial: Completed | Dominated) -> NDArray[np.float64]:
        """The trial's objectives as they are judged: shape (n_objectives,). Raises `InputError` if it lacks one.

        Of a `Dominated` trial they are estimates, which are no result.
        """
        self.check(trial)
        return np.array([o.key(trial.metrics[o.name].value) for o in self.objectives], dtype=np.float64)

    def check(self, trial: Completed | Dominated) -> None:
        """Raises `InputError` if the trial lacks an objective."""
        if missing := [o.name for o in self.objectives if o.name not in trial.metrics]:
            raise InputError(
                f"trial {trial.number} has no metric {missing[0]!r}, which is an objective; "
                f"it has {', '.join(sorted(trial.metrics)) or 'none'}"
            )


@runtime_checkable
class Searcher(Protocol):
    """Proposes candidates.

    The driver makes it with a `SearchContext` (`make_searcher`), tells it the baselines, then alternates: `ask(n)`
    gives up to n candidates that it has not proposed before (fewer, or none, when the space is exhausted); `tell` takes
    finished trials in *any* order, of any type, also ones that it never asked for (baselines; after a resume, the whole
    ledger), and of one candidate more than once: the first result stays.
    A `Completed` trial is a result. `Failed`, `Infeasible` and `Dominated` ones are none, and only say that the
    candidate is known; the estimates of a `Dominated` trial may be learnt from.
    Between the two, other asks may come: workers are asynchronous.

    Same context and same calls, same asks: in another process, with any hash seed. `state_dict` is JSON, and
    `load_state_dict` into a fresh searcher of the same context goes on as the old one would have, the random generator
    included.
    """

    def ask(self, n: int) -> list[Candidate]: ...

    def tell(self, trials: Sequence[Trial]) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@runtime_checkable
class Reporting(Protocol):
    """A searcher that can say how far its own model is to be trusted. No searcher has to."""

    def report(self) -> dict[str, Any]:
        """JSON builtins, by the modelled metric's name: `n`, `loo_rmse`, `heldout_rmse`, `heldout_rank`, `trust`.

        `trust` is in [0, 1]; what is not known yet is None.
        """
        ...
