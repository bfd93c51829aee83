"""Who is seen on the whole search split, of those that were seen on its first samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from ..._arrays import FloatArray
from ...evaluators import Measurement
from ..searchers import hypervolume_improvement
from ..values import Completed, EarlyStopped, Failed, Limits, LowFidelity, Objective, Trial, non_dominated, violation

EVERY = 25
"""One candidate in so many is promoted while the search goes on, so that there is a front whenever it is stopped."""
SHARE, LEAST = 1 / 7, 16
"""Of the candidates that were screened so many are promoted, and at least so many: a front has more points than are
worth a look at the whole split (ResNet-20's 300 candidates 119; the first 43 that are promoted have 99.8 % of the
hypervolume of the first 50).
"""


def as_screened(trial: Trial) -> Trial | None:
    """The trial as a searcher is told of it where candidates are screened: with what it was on the first samples.

    None of a trial on the whole split whose screening was told before, or that says nothing of the first samples.
    """
    if isinstance(trial, LowFidelity):
        return Completed(
            number=trial.number, candidate=trial.candidate, kind=trial.kind, metrics=trial.metrics,
            seconds=trial.seconds, samples=trial.samples,
        )  # fmt: skip
    if isinstance(trial, Completed):
        if trial.kind == "mixed" or not trial.screen:
            return None
        return replace(trial, metrics={**trial.metrics, **trial.screen}, screen={})
    return None if isinstance(trial, EarlyStopped) else trial


class Promotion:
    """Keeps what was screened, and says who is next.

    guide   what the search is led by; the quality comes first
    static  names of the metrics that are known without running anything
    limits  on each device; who keeps to one of them is wanted
    """

    def __init__(self, guide: Sequence[Objective], static: Iterable[str], limits: Sequence[Limits]) -> None:
        self._guide, self._static, self._limits = tuple(guide), frozenset(static), tuple(limits)
        self._trials: list[Completed] = []
        self._values = np.zeros((0, len(self._guide)))
        self._seen: set[tuple[int, ...]] = set()  # on the whole split, or given up
        self._n_screened = self._n_promoted = 0

    def add(self, trial: Trial) -> None:
        """Any trial, in any order. A screened one may be promoted, unless its candidate was seen on the whole split or
        failed there."""
        self._n_screened += isinstance(trial, LowFidelity) and trial.kind == "mixed"
        if isinstance(trial, LowFidelity) and trial.kind != "mixed":
            self._seen.add(trial.candidate.levels)  # a baseline that was given up, or is seen on all anyway
        if isinstance(trial, Completed | EarlyStopped) or (isinstance(trial, Failed) and trial.kind == "mixed"):
            self._see(trial)
        view = as_screened(trial)
        if not isinstance(view, Completed) or trial.kind == "original" or self._breaks_a_limit(view):
            return
        self._trials.append(view)
        row = [o.key(view.metrics[o.name].value) for o in self._guide]
        self._values = np.concatenate([self._values, np.array([row])])

    def asked(self, trial: Trial) -> None:
        """It is being seen on the whole split."""
        self._see(trial)

    def n_due(self) -> int:
        """How many of those that are on the front, as far as their first samples say, are still to be seen on all."""
        left = max(LEAST, round(SHARE * self._n_screened)) - self._n_promoted
        return max(0, min(len(self._due()), left))

    def next(self) -> Completed | None:
        """Of these an end of the front, or the one that adds most to those that were seen on all."""
        if not self.n_due():
            return None
        rows = self._due()
        ends = {min(self._front(), key=lambda i: self._values[i, j]) for j in range(len(self._guide))}
        if unseen := sorted(ends & set(rows)):
            return self._trials[unseen[0]]
        known = [i for i, trial in enumerate(self._trials) if trial.candidate.levels in self._seen]
        values = self._scaled()
        worth = hypervolume_improvement(values[rows], values[known], np.zeros(values.shape[1]))
        return self._trials[rows[int(worth.argmax())]]

    def _see(self, trial: Trial) -> None:
        self._n_promoted += trial.kind == "mixed" and trial.candidate.levels not in self._seen
        self._seen.add(trial.candidate.levels)

    def _due(self) -> list[int]:
        return [i for i in self._front() if self._trials[i].candidate.levels not in self._seen]

    def _front(self) -> list[int]:
        front: list[int] = np.flatnonzero(non_dominated(self._values)).tolist() if len(self._values) else []
        return front

    def _scaled(self) -> FloatArray:
        """A quality that spans magnitudes, as divergences do, by its logarithm."""
        values = self._values.copy()
        first = values[:, 0]
        if (first > 0).all() and first.max() > 20 * first.min():
            values[:, 0] = np.log(first)
        return values

    def _breaks_a_limit(self, trial: Completed) -> bool:
        """Surely: of what was measured on few samples the better end of the interval counts."""
        return all(
            violation({name: self._at_best(name, m, limits) for name, m in trial.metrics.items()}, limits) > 0.0
            for limits in self._limits
        )

    def _at_best(self, name: str, measurement: Measurement, limits: Limits) -> Measurement:
        low, high = limits.get(name, (None, None))
        if name in self._static or measurement.low is None or measurement.high is None:
            return measurement
        if low is not None and high is None:
            return replace(measurement, value=measurement.high)
        if high is not None and low is None:
            return replace(measurement, value=measurement.low)
        return measurement
