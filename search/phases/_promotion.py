"""Promotion: candidates that look good on the first samples are evaluated on the whole search split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from ..._arrays import FloatArray
from ...evaluators import Measurement
from ..searchers import hypervolume_improvement
from ..values import Completed, EarlyStopped, Failed, Limits, LowFidelity, Objective, Trial, non_dominated, violation

EVERY = 25
"""Number of proposals between two promotions while the search goes on, so that a stopped search has a front."""
SHARE, LEAST = 1 / 7, 16
"""Share of the screened candidates that are promoted, and the least number. A front has more points than are worth an
evaluation on the whole split: of ResNet-20's 300 candidates it has 119, and the first 43 promoted ones have 99.8 % of
the hypervolume of the first 50."""


def as_screened(trial: Trial) -> Trial | None:
    """Return the trial with its figures on the first samples, for a searcher whose candidates are screened.

    None for a trial on the whole split whose screening was told before, and for one without figures on the first
    samples.
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
    """Keeps the screened candidates, and says which one is promoted next.

    guide   objectives that lead the search; the quality comes first
    static  names of the metrics that are known without running anything
    limits  limits on each device; a candidate that meets them on one device is wanted
    """

    def __init__(self, guide: Sequence[Objective], static: Iterable[str], limits: Sequence[Limits]) -> None:
        self._guide, self._static, self._limits = tuple(guide), frozenset(static), tuple(limits)
        self._trials: list[Completed] = []
        self._values = np.zeros((0, len(self._guide)))
        self._seen: set[tuple[int, ...]] = set()  # evaluated on the whole split, or given up
        self._n_screened = self._n_promoted = 0

    def add(self, trial: Trial) -> None:
        """Take in any trial, in any order.

        A screened candidate may be promoted, unless it was evaluated on the whole split or failed there.
        """
        self._n_screened += isinstance(trial, LowFidelity) and trial.kind == "mixed"
        if isinstance(trial, LowFidelity) and trial.kind != "mixed":
            self._seen.add(trial.candidate.levels)  # a baseline is given up, or evaluated on the whole split anyway
        if isinstance(trial, Completed | EarlyStopped) or (isinstance(trial, Failed) and trial.kind == "mixed"):
            self._see(trial)
        view = as_screened(trial)
        if not isinstance(view, Completed) or trial.kind == "original" or self._breaks_a_limit(view):
            return
        self._trials.append(view)
        row = [o.key(view.metrics[o.name].value) for o in self._guide]
        self._values = np.concatenate([self._values, np.array([row])])

    def asked(self, trial: Trial) -> None:
        """Take note that a trial's candidate is being evaluated on the whole split."""
        self._see(trial)

    def n_due(self) -> int:
        """Number of candidates on the front of the first samples that are still to be promoted."""
        left = max(LEAST, round(SHARE * self._n_screened)) - self._n_promoted
        return max(0, min(len(self._due()), left))

    def next(self) -> Completed | None:
        """Return the next candidate to promote: an end of the front, or the one that adds most to the promoted ones.

        None if no promotion is due.
        """
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
        """Return the objectives, with the logarithm of a quality that spans magnitudes, as divergences do."""
        values = self._values.copy()
        first = values[:, 0]
        if (first > 0).all() and first.max() > 20 * first.min():
            values[:, 0] = np.log(first)
        return values

    def _breaks_a_limit(self, trial: Completed) -> bool:
        """Return True for a trial that surely breaks a limit on every device.

        The better end of the interval counts for figures that were measured on few samples.
        """
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
