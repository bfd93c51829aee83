"""The protocol of searchers, and the context that each is made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ..values import Candidate, Completed, EarlyStopped, Objective, SearchSpace, SensitivityTable, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchContext:
    """Everything that a searcher may know when it is made.

    objectives  objectives of the front, the quality first. By default the quality objective is "divergence" (from the
                original's outputs): it is smoother than accuracy, and tells close candidates apart
    seed        seed of every random draw
    table       the sensitivity table; None if the task skips it, or the searcher does not ask for one
    limits      metric name -> (lower bound or None, upper bound or None)
    """

    space: SearchSpace
    objectives: tuple[Objective, ...]
    seed: int
    table: SensitivityTable | None = None
    limits: Mapping[str, tuple[float | None, float | None]]

    def vector(self, trial: Completed | EarlyStopped) -> NDArray[np.float64]:
        """Return the trial's objectives as they are compared: shape (n_objectives,), minimised.

        For an `EarlyStopped` trial they are estimates, not a result. Raises `InputError` if the trial lacks one.
        """
        self.check(trial)
        return np.array([o.key(trial.metrics[o.name].value) for o in self.objectives], dtype=np.float64)

    def check(self, trial: Completed | EarlyStopped) -> None:
        """Raise `InputError` if the trial lacks an objective."""
        if missing := [o.name for o in self.objectives if o.name not in trial.metrics]:
            raise InputError(
                f"trial {trial.number} has no metric {missing[0]!r}, which is an objective; "
                f"it has {', '.join(sorted(trial.metrics)) or 'none'}"
            )


@runtime_checkable
class Searcher(Protocol):
    """A source of candidates.

    The search makes it with a `SearchContext` (`make_searcher`), tells it the baselines, then alternates `ask` and
    `tell`. Several asks may come between two tells, because workers are asynchronous.

    The same context and the same calls give the same candidates: in another process, and with any hash seed.
    """

    def ask(self, n: int) -> list[Candidate]:
        """Return up to n candidates that were not proposed before; fewer, or none, if the space is exhausted."""
        ...

    def tell(self, trials: Sequence[Trial]) -> None:
        """Take finished trials of any type, in any order.

        A `Completed` trial is a result. `Failed`, `Infeasible` and `EarlyStopped` trials are not: they say only that
        the candidate is known. A searcher may learn from the estimates of an `EarlyStopped` trial.

        Trials may come that nobody asked for: baselines, or the whole ledger after a resume. If a candidate comes more
        than once, its first result stays.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state as JSON builtins."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the state of a fresh searcher of the same context.

        It goes on as the old searcher would have, random draws included.
        """
        ...


@runtime_checkable
class Reporting(Protocol):
    """A searcher that reports how far its own model can be trusted. This is optional."""

    def report(self) -> dict[str, Any]:
        """Return JSON builtins by name of the modelled metric.

        Keys: `n`, `loo_rmse`, `heldout_rmse`, `heldout_rank` and `trust` in [0, 1]. Unknown values are None.
        """
        ...
