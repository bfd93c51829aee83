"""The samplers of Optuna, unchanged, over the levels of the groups.

An in-memory study is asked and told. A level is an integer, 0 the dearest. The searcher adds what Optuna does not know:

- A candidate that was proposed before is not evaluated again. The sampler's trial is told the known result (or fails),
  and the sampler is asked again, up to `RETRIES` times. Then a neighbour of its last choice is proposed.
- Trials that it never asked for (baselines, a ledger after a resume) are added as finished ones. A genetic sampler gets
  them as if it had asked for them, because it breeds only from trials that have a generation.
- A failed trial is told as failed, and samplers ignore it. A trial that is infeasible by its static costs is told as
  pruned, and TPE keeps away from it.
- Limits become Optuna's constraints, which the samplers that support them respect.
- The sampler is made afresh for each ask, seeded by (seed, number of asks), so the state is no more than the study and
  a number. A sampler whose sequence is *defined* by one seed (QMC, Grid) gets the same seed each time.

With 60 groups the multi-objective TPE takes 0.3 s to ask and the GP sampler 7 s; with 400 groups, 3.5 s and 70 s.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ...errors import ConfigError, InputError
from ..values import Candidate, Completed, Infeasible, Trial
from ._base import SearchContext
from ._budget import Budget
from ._known import KnownCandidates, Levels, levels_of
from ._state import read_levels, read_state, write_state

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.storages import InMemoryStorage

Result: TypeAlias = tuple[list[float], dict[str, float]]
"""Minimised objectives, and the excess over each limit."""

RETRIES = 16
"""Most repetitions of a sampler for one proposal."""

SAMPLERS = {
    "tpe": "optuna.samplers.TPESampler",
    "nsga2": "optuna.samplers.NSGAIISampler",
    "nsga3": "optuna.samplers.NSGAIIISampler",
    "gp": "optuna.samplers.GPSampler",
    "random": "optuna.samplers.RandomSampler",
    "qmc": "optuna.samplers.QMCSampler",
}
"""Short names; any other sampler is named by its class or its import path."""

ONE_SEQUENCE = {"QMCSampler", "GridSampler"}
"""Samplers whose sequence is defined by one seed."""


class OptunaSearcher:
    """A searcher around an Optuna sampler, see the module. Options:

    sampler          a short name (`SAMPLERS`) or an import path, "package.module.Class"
    params           arguments of the sampler's class
    seed_with_sweep  number of points of the sensitivity table's sweep that are proposed first (True: 16)
    """

    def __init__(
        self,
        context: SearchContext,
        *,
        sampler: str = "tpe",
        params: Mapping[str, Any] | None = None,
        seed_with_sweep: int | bool = False,
    ) -> None:
        self._context = context
        self._class = sampler_class(sampler)
        self._params = dict(params or {})
        self._fresh_sampler(0)  # wrong arguments raise now, not at the first proposal
        self._first = Budget(context).seeds(seed_with_sweep, 16)
        self._reset()

    def _reset(self) -> None:
        self._known = KnownCandidates(self._context.space)
        self._results: dict[Levels, Result] = {}
        self._open: dict[Levels, int] = {}
        self._n_asks = 0
        self._storage, self._study = _new_study(len(self._context.objectives))

    def ask(self, n: int) -> list[Candidate]:
        candidates = []
        for _ in range(n):
            levels = self._propose()
            if levels is None:
                break
            candidates.append(Candidate(levels=levels))
        return candidates

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            self._context.space.check(trial.candidate)
            levels = levels_of(trial.candidate)
            result = None
            if isinstance(trial, Completed):
                values = [float(value) for value in self._context.vector(trial)]
                result = (values, _excesses(trial, self._context.limits))
            if levels in self._results:
                continue  # a trial's result does not change
            if (number := self._open.pop(levels, None)) is not None:
                self._finish(number, result, pruned=isinstance(trial, Infeasible))
            elif result is not None or levels not in self._known:
                self._add(levels, result, pruned=isinstance(trial, Infeasible))
            self._known.add(levels)
            if result is not None:
                self._results[levels] = result

    def state_dict(self) -> dict[str, Any]:
        trials = [
            {
                "state": trial.state.name,
                "values": trial.values,
                "params": trial.params,
                "system_attrs": trial.system_attrs,
            }
            for trial in self._study.get_trials(deepcopy=False)
        ]
        return write_state(
            "optuna",
            self._context.space,
            sampler=_path_of(self._class),
            known=[list(levels) for levels in self._known],
            results=[[list(levels), values, excess] for levels, (values, excess) in self._results.items()],
            open=[[list(levels), number] for levels, number in self._open.items()],
            n_asks=self._n_asks,
            trials=copy.deepcopy(trials),
            study_attrs=copy.deepcopy(dict(self._storage.get_study_system_attrs(self._study_id))),
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        space = self._context.space
        names = ("sampler", "known", "results", "open", "n_asks", "trials", "study_attrs")
        fields = read_state(state, "optuna", space, names)
        if fields["sampler"] != _path_of(self._class):
            raise ConfigError(
                f"this state is of the sampler {fields['sampler']}, expected {_path_of(self._class)}; "
                "name the same sampler, or start afresh and tell the ledger"
            )
        self._reset()
        self._known.update(read_levels(levels, space) for levels in fields["known"])
        self._results = {
            read_levels(levels, space): (list(values), dict(excess)) for levels, values, excess in fields["results"]
        }
        self._open = {read_levels(levels, space): int(number) for levels, number in fields["open"]}
        self._n_asks = int(fields["n_asks"])
        for trial in fields["trials"]:
            self._restore(trial)
        for key, value in fields["study_attrs"].items():
            self._storage.set_study_system_attr(self._study_id, key, copy.deepcopy(value))

    @property
    def _study_id(self) -> int:
        return int(self._storage.get_study_id_from_name(self._study.study_name))

    @property
    def _is_genetic(self) -> bool:
        from optuna.samplers import BaseGASampler

        return issubclass(self._class, BaseGASampler)

    def _propose(self) -> Levels | None:
        if self._known.exhausted:
            return None
        for levels in self._first:
            if levels not in self._known:
                return self._take(levels, self._ask_study(levels)[0])
        levels = (0,) * len(self._context.space)
        for _ in range(RETRIES):
            number, levels = self._ask_study()
            if levels not in self._known:
                return self._take(levels, number)
            self._finish(number, self._results.get(levels))
        fresh = self._known.near(levels, self._known.rng(self._context.seed))
        return None if fresh is None else self._take(fresh, self._ask_study(fresh)[0])

    def _take(self, levels: Levels, number: int) -> Levels:
        self._known.add(levels)
        self._open[levels] = number
        return levels

    def _ask_study(self, wanted: Levels | None = None) -> tuple[int, Levels]:
        """Return the number and levels of a new trial of the study: the sampler's choice, or the wanted levels."""
        if wanted is not None:
            self._study.enqueue_trial(self._params_of(wanted))
        self._study.sampler = self._fresh_sampler(self._n_asks)
        self._n_asks += 1
        with _quiet():
            trial = self._study.ask(self._distributions())
            if wanted is not None and self._is_genetic:
                _ = trial.relative_params  # asks the sampler, which gives the trial a generation
        return trial.number, tuple(int(trial.params[group.name]) for group in self._context.space.groups)

    def _finish(self, number: int, result: Result | None, *, pruned: bool = False) -> None:
        from optuna.trial import TrialState

        if result is not None:
            frozen = self._study.get_trials(deepcopy=False)[number]
            for name, excess in result[1].items():
                frozen.set_constraint(name, excess)
        state = TrialState.PRUNED if pruned else TrialState.FAIL if result is None else TrialState.COMPLETE
        try:
            with _quiet():
                self._study.tell(number, result[0] if result is not None else None, state)
        except RuntimeError as error:
            # a sampler that has tried everything (grid, brute force) stops the study, which only `optimize` allows;
            # by then the trial is stored, and the rest of the space can still be proposed
            if "Study.stop" not in str(error):
                raise

    def _add(self, levels: Levels, result: Result | None, *, pruned: bool) -> None:
        """Add a trial that the study never asked for."""
        from optuna.trial import TrialState, create_trial

        if result is not None and self._is_genetic:
            self._finish(self._ask_study(levels)[0], result)
            return
        trial = create_trial(
            state=TrialState.PRUNED if pruned else TrialState.FAIL if result is None else TrialState.COMPLETE,
            values=None if result is None else result[0],
            constraints=None if result is None else result[1],
            params=self._params_of(levels),
            distributions=self._distributions(),
        )
        self._study.add_trial(trial)

    def _restore(self, trial: Mapping[str, Any]) -> None:
        from optuna.trial import TrialState, create_trial

        distributions = self._distributions()
        self._study.add_trial(
            create_trial(
                state=TrialState[trial["state"]],
                values=trial["values"],
                params=dict(trial["params"]),
                distributions={name: distributions[name] for name in trial["params"]},
                system_attrs=copy.deepcopy(dict(trial["system_attrs"])),
            )
        )

    def _params_of(self, levels: Levels) -> dict[str, int]:
        return {group.name: level for group, level in zip(self._context.space.groups, levels, strict=True)}

    def _distributions(self) -> dict[str, BaseDistribution]:
        from optuna.distributions import IntDistribution

        return {group.name: IntDistribution(0, len(group.levels) - 1) for group in self._context.space.groups}

    def _fresh_sampler(self, n_asks: int) -> BaseSampler:
        params = dict(self._params)
        if "seed" in inspect.signature(self._class).parameters and "seed" not in params:
            entropy = [self._context.seed & 0xFFFF_FFFF_FFFF_FFFF]
            if self._class.__name__ not in ONE_SEQUENCE:
                entropy.append(n_asks)
            params["seed"] = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        try:
            with _quiet():
                return self._class(**params)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"the sampler {_path_of(self._class)} refuses its params {self._params}: {error}; "
                "change [search] params"
            ) from error


def _new_study(n_objectives: int) -> tuple[InMemoryStorage, Study]:
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # otherwise it announces the study on stderr
    try:
        storage = optuna.storages.InMemoryStorage()
        study = optuna.create_study(storage=storage, directions=["minimize"] * n_objectives)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return storage, study


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's warnings that a sampler or an argument is experimental: the user chose it by name."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def short_name(name: str) -> str | None:
    """Return the shortest spelling of a sampler: a name in `SAMPLERS`, else an import path. None for any other word.

    Nothing is imported: whether there is such a class is seen by `sampler_class`.
    """
    if name in SAMPLERS:
        return name
    path = name if "." in name else f"optuna.samplers.{name}" if name.endswith("Sampler") else None
    if path is None:
        return None
    public = path.removeprefix("optuna.samplers.").rpartition(".")[2]
    own = f"optuna.samplers.{public}" if path.startswith("optuna.samplers.") else path
    return next((short for short, known in SAMPLERS.items() if known == own), path)


def sampler_class(name: str) -> type[BaseSampler]:
    """Import a sampler's class by its short name or import path. Raises `InputError` where there is none."""
    short = short_name(name) or name
    path = SAMPLERS.get(short, short)
    module, _, attribute = path.rpartition(".")
    expected = f"sampler must be one of {', '.join(SAMPLERS)} or an import path such as optuna.samplers.GPSampler"
    if not module:
        raise InputError(f"{expected}, got {name!r}")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{expected}, got {name!r}: {error}") from error
    from optuna.samplers import BaseSampler

    if not (isinstance(found, type) and issubclass(found, BaseSampler)):
        raise InputError(f"{expected}, got {name!r}, which is not a subclass of optuna.samplers.BaseSampler")
    return found


def _path_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _excesses(trial: Completed, limits: Mapping[str, tuple[float | None, float | None]]) -> dict[str, float]:
    """Return Optuna's constraints: limit -> excess relative to the bound, negative if the limit is kept."""
    excesses = {}
    for name, (low, high) in limits.items():
        if name not in trial.metrics:
            continue
        value = trial.metrics[name].value
        if low is not None:
            excesses[f"{name} min"] = float((low - value) / (abs(low) or 1.0))
        if high is not None:
            excesses[f"{name} max"] = float((value - high) / (abs(high) or 1.0))
    return excesses
