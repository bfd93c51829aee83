"""What a searcher is, and what it is told."""

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

    def vector(self, trial: Completed | EarlyStopped) -> NDArray[np.float64]:
        """The trial's objectives as they are judged: shape (n_objectives,). Raises `InputError` if it lacks one.

        Of a `EarlyStopped` trial they are estimates, which are no result.
        """
        self.check(trial)
        return np.array([o.key(trial.metrics[o.name].value) for o in self.objectives], dtype=np.float64)

    def check(self, trial: Completed | EarlyStopped) -> None:
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
    A `Completed` trial is a result. `Failed`, `Infeasible` and `EarlyStopped` ones are none, and only say that the
    candidate is known; the estimates of a `EarlyStopped` trial may be learnt from.
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
