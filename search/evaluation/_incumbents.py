"""Incumbents: completed trials that a candidate has to beat, so that a worse one can be stopped early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..values import Completed, Limits, violation

if TYPE_CHECKING:
    from ..._arrays import SingleArray
    from ...evaluators import Measurement, SequentialTest
    from ..values import Objective

MAX_BYTES = 64 << 20
"""Bytes of losses that are kept. Beyond that, no new incumbents are added."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Incumbent:
    """A completed trial on the front.

    costs   its static objectives, minimised
    loss    its quality objective, minimised
    losses  (n_samples,) one for each sample of the search split, in order; their mean falls as the quality rises
    """

    number: int
    costs: tuple[float, ...]
    loss: float
    losses: SingleArray


class Incumbents:
    """Keeps the trials on the front, with their losses, and finds the one that a new candidate has to beat.

    guide      objectives that lead the search: the quality and costs
    costs      names of the objectives that are known without running the model
    limits     a trial outside them is no incumbent, because its being better and cheaper does not count
    test       compares losses sample by sample; None switches early stopping off
    max_bytes  of losses that are kept

    With two quality objectives (the metric and the divergence) no single loss stands for both. Then there is no
    incumbent, and nothing is stopped early.
    """

    def __init__(
        self,
        guide: Sequence[Objective],
        costs: Sequence[str],
        limits: Limits,
        test: SequentialTest | None,
        *,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._costs = [o for o in guide if o.name in costs]
        qualities = {o.name: o for o in guide if o.name not in costs}
        self._quality = next(iter(qualities.values())) if len(qualities) == 1 else None
        self._limits = limits
        self._max_bytes = max_bytes
        self._front: dict[int, Incumbent] = {}
        self.test = test if self._quality is not None and self._costs else None

    @property
    def quality(self) -> str | None:
        """Name of the metric whose losses are compared; None if nothing is stopped early."""
        return self._quality.name if self.test is not None and self._quality is not None else None

    def __len__(self) -> int:
        return len(self._front)

    def to_beat(self, static_costs: Mapping[str, Measurement]) -> Incumbent | None:
        """Find the incumbent of least loss among those that cost no more in any static objective.

        static_costs  metrics of the candidate that are known without running it

        None if there is no such incumbent.
        """
        if self.test is None:
            return None
        own = self._cost_vector(static_costs)
        found = [r for r in self._front.values() if all(a <= b for a, b in zip(r.costs, own, strict=True))]
        return min(found, key=lambda r: (r.loss, r.number), default=None)

    def add(self, trial: Completed, losses: SingleArray | None) -> bool:
        """Add a trial if it is on the front and within the limits, and drop those that it dominates.

        losses  (n_samples,) of the whole search split; None if they are not known, and then nothing is added

        Returns True if the trial was added.
        """
        if self.test is None or self._quality is None or losses is None or trial.kind == "original":
            return False
        if len(losses) != self.test.total or violation(trial.metrics, self._limits) > 0.0:
            return False
        loss = self._quality.key(trial.metrics[self._quality.name].value)
        new = Incumbent(number=trial.number, costs=self._cost_vector(trial.metrics), loss=loss, losses=losses)
        if any(_covers(old, new) for old in self._front.values()):
            return False
        self._front = {number: old for number, old in self._front.items() if not _covers(new, old)}
        if (len(self._front) + 1) * losses.nbytes > self._max_bytes:
            return False
        self._front[trial.number] = new
        return True

    def _cost_vector(self, metrics: Mapping[str, Measurement]) -> tuple[float, ...]:
        return tuple(o.key(metrics[o.name].value) for o in self._costs)


def _covers(one: Incumbent, other: Incumbent) -> bool:
    """Tell whether one is no worse than the other in the loss and in every cost."""
    return one.loss <= other.loss and all(a <= b for a, b in zip(one.costs, other.costs, strict=True))
