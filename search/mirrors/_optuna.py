"""The run as an Optuna study, so that `optuna-dashboard` and Optuna's plots open it. A copy of the ledger.

The study lies in one journal file. Only the driver writes it, one line for each finished trial and all new ones at
once. It recognizes trials that are there already by their number. A journal that a kill tore, or of another space, is
written anew from the trials. A lock that a killed writer left behind is removed.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..values import Completed, EarlyStopped, Failed, Infeasible, Objective, SearchSpace, Trial

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from ._journal import BatchedJournal

LOCK_PATIENCE_S = 3.0
"""Seconds after which a lock counts as left behind; Optuna holds it for the time of one write."""
MAX_LABELS = 2000
"""Most levels of a space that are shown by their labels; a larger space shows indices. Each trial repeats them all."""


class OptunaMirror:
    """The Optuna study of one run at `path` (…/optuna.log). `optuna-dashboard PATH` opens it.

    Parameters are the groups by name, their values the levels' labels ("w4 a8"). A completed trial's values are the
    objectives in their own direction, and its constraints the limits; the other metrics, the kind and the paredown
    number are user attributes. An infeasible trial is PRUNED and a failed one FAIL, with the reason beside it.
    """

    def __init__(
        self,
        path: Path,
        *,
        study_name: str = "paredown",
        space: SearchSpace,
        objectives: Sequence[Objective],
        limits: Mapping[str, tuple[float | None, float | None]] | None = None,
    ) -> None:
        self.path = Path(path)
        self._study_name = study_name
        self._space = space
        self._objectives = tuple(objectives)
        self._limits = dict(limits or {})
        self._labels = _labels(space)
        self._distributions = _distributions(space, self._labels)
        self._study: Study | None = None
        self._journal: BatchedJournal | None = None
        self._mirrored: set[int] = set()

    def sync(self, trials: Sequence[Trial]) -> int:
        """Add the trials that are not in the study yet; gives their number. It takes all trials, not only new ones.

        Raises `OSError` when the file cannot be written.
        """
        if self._journal is not None and not (self.path.exists() and self._journal.is_ours):
            self._study = None  # deleted, or changed by the dashboard, which is allowed: it is read anew
        if self._study is None:
            self._open(trials)
        study, journal = self._study, self._journal
        if study is None or journal is None:
            raise RuntimeError(f"no study was opened at {self.path}")
        new = [trial for trial in trials if trial.number not in self._mirrored]
        if not new:
            return 0
        _remove_stale_lock(self.path)
        self._study = None  # read anew after an error, when the contents of the file are not known
        with journal.batch():
            for trial in new:
                study.add_trial(self._frozen(trial))
        self._mirrored.update(trial.number for trial in new)
        self._study = study
        return len(new)

    def _open(self, trials: Sequence[Trial]) -> None:
        self._mirrored = set()
        if self.path.exists() and (found := self._load({trial.number: trial for trial in trials})) is not None:
            self._study, self._journal, self._mirrored = found
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(self.path.name + ".new")
        for left in (fresh, _lock_of(fresh), _lock_of(self.path)):
            left.unlink(missing_ok=True)
        self._create(fresh)  # written beside it and then moved, so that nobody opens half a study
        os.replace(fresh, self.path)
        loaded = self._load({})
        if loaded is None:
            raise OSError(f"the Optuna journal that was just written to {self.path} cannot be read back")
        self._study, self._journal, self._mirrored = loaded

    def _load(self, known: Mapping[int, Trial]) -> tuple[Study, BatchedJournal, set[int]] | None:
        """(study, journal, numbers of its trials); None if the journal is torn or is not of this run."""
        import optuna

        if not _ends_whole(self.path):
            return None
        _remove_stale_lock(self.path)
        journal = _journal(self.path)
        try:
            with _quiet():
                study = optuna.load_study(study_name=self._study_name, storage=_storage(journal))
        except (KeyError, ValueError, AssertionError):
            return None  # another study, or lines that are no journal: it is only a copy, and is written anew
        if study.directions != [_direction(o) for o in self._objectives]:
            return None
        numbers = set()
        for frozen in study.get_trials(deepcopy=False):
            number = frozen.user_attrs.get("number")
            if number is None:
                continue  # somebody else's addition, by the dashboard
            if frozen.distributions != self._distributions:
                return None
            if number in known and frozen.params != self._params(known[number]):
                return None
            numbers.add(int(number))
        return study, journal, numbers

    def _create(self, path: Path) -> None:
        import optuna

        with _quiet():
            study = optuna.create_study(
                study_name=self._study_name,
                storage=_storage(_journal(path)),
                directions=[_direction(o) for o in self._objectives],
            )
            study.set_metric_names([o.name for o in self._objectives])

    def _frozen(self, trial: Trial) -> FrozenTrial:
        from optuna.trial import TrialState, create_trial

        attributes: dict[str, Any] = {"number": trial.number, "kind": trial.kind}
        if isinstance(trial, Completed):
            for name, measurement in trial.metrics.items():
                attributes[name] = measurement.value
                if measurement.low is not None and measurement.high is not None:
                    attributes[f"{name} 95%"] = [measurement.low, measurement.high]
            frozen = create_trial(
                state=TrialState.COMPLETE,
                values=[trial.metrics[o.name].value for o in self._objectives],
                constraints=self._constraints(trial),
                params=self._params(trial),
                distributions=self._distributions,
                user_attrs=attributes,
            )
        else:
            if isinstance(trial, EarlyStopped):
                attributes |= {"beaten by": trial.beaten_by, "samples": trial.samples}
            frozen = create_trial(
                state=TrialState.FAIL if isinstance(trial, Failed) else TrialState.PRUNED,
                params=self._params(trial),
                distributions=self._distributions,
                user_attrs={**attributes, "reason": trial.reason},
            )
        if not isinstance(trial, Infeasible):
            now = datetime.now()
            frozen.datetime_start, frozen.datetime_complete = now - timedelta(seconds=trial.seconds), now
        return frozen

    def _params(self, trial: Trial) -> dict[str, Any]:
        return {
            group.name: labels[level] if labels else level
            for group, labels, level in zip(self._space.groups, self._labels, trial.candidate.levels, strict=True)
        }

    def _constraints(self, trial: Completed) -> dict[str, float]:
        constraints = {}
        for name, (low, high) in self._limits.items():
            if name in trial.metrics:
                value = trial.metrics[name].value
                if low is not None:
                    constraints[f"{name} min"] = float(low - value)
                if high is not None:
                    constraints[f"{name} max"] = float(value - high)
        return constraints


def _labels(space: SearchSpace) -> list[tuple[str, ...]]:
    """Labels of the levels of each group, distinct within the group; empty tuples where there would be too many."""
    if sum(space.n_levels) > MAX_LABELS:
        return [() for _ in space.groups]
    labels = []
    for group in space.groups:
        names = [level.label() for level in group.levels]
        labels.append(tuple(n if names.count(n) == 1 else f"{n} #{i}" for i, n in enumerate(names)))
    return labels


def _distributions(space: SearchSpace, labels: list[tuple[str, ...]]) -> dict[str, BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    return {
        group.name: CategoricalDistribution(names) if names else IntDistribution(0, len(group.levels) - 1)
        for group, names in zip(space.groups, labels, strict=True)
    }


def _direction(objective: Objective) -> Any:
    from optuna.study import StudyDirection

    return StudyDirection.MAXIMIZE if objective.maximise else StudyDirection.MINIMIZE


def _journal(path: Path) -> BatchedJournal:
    from ._journal import BatchedJournal

    return BatchedJournal(path)


def _storage(journal: BatchedJournal) -> Any:
    from optuna.storages import JournalStorage

    return JournalStorage(journal)


def _lock_of(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _remove_stale_lock(path: Path) -> None:
    """Wait until a lock goes away, and remove it when it is older than `LOCK_PATIENCE_S`."""
    lock = _lock_of(path)
    while True:
        try:
            age = time.time() - os.lstat(lock).st_mtime
        except FileNotFoundError:
            return
        if age > LOCK_PATIENCE_S:
            lock.unlink(missing_ok=True)
            return
        time.sleep(0.02)


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's announcements on stderr and its warnings that metric names are experimental."""
    import optuna
    from optuna.exceptions import ExperimentalWarning

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
