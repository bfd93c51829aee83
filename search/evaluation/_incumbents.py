"""Who a candidate has to beat, so that one that surely will not is not looked at to the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..values import Completed, Limits, violation

if TYPE_CHECKING:
    from ...evaluators import Measurement, SequentialTest
    from ..values import Objective

Losses = NDArray[np.float32]

MEMORY = 64 << 20
"""Bytes of losses that are kept. Beyond, no new rivals are taken in."""


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
    losses: Losses


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationResult:
    """What a worker gives for a trial.

    metrics  on the whole split; estimates where the candidate was dropped; where it was to be screened, on the first
             samples
    samples  sample passes that it took
    losses   (n_samples,), where all samples were seen and losses were asked for
    dropped  whether it was dropped on the way
    screen   metrics on the first samples, where a candidate that sees all was to tell them apart
    """

    metrics: Mapping[str, Measurement]
    samples: int
    losses: Losses | None = None
    dropped: bool = False
    screen: Mapping[str, Measurement] = field(default_factory=dict)


class Incumbents:
    """Keeps the losses of the trials that are on the front, as far as the guide goes.

    guide     what the search is led by: the quality, and costs
    costs     names of those objectives that are known without running anything
    test      None switches racing off

    Only a trial within the limits is a rival: one that is better and cheaper, but not allowed, says nothing. Where the
    quality is more than one objective (the metric beside the divergence), none stands for it, and nobody races.
    """

    def __init__(
        self, guide: Sequence[Objective], costs: Sequence[str], limits: Limits, test: SequentialTest | None
    ) -> None:
        self._costs = [o for o in guide if o.name in costs]
        quality = {o.name: o for o in guide if o.name not in costs}
        self._quality = next(iter(quality.values())) if len(quality) == 1 else None
        self._limits = limits
        self.test = test if self._quality is not None and self._costs else None
        self._front: dict[int, Incumbent] = {}

    @property
    def quality(self) -> str | None:
        """Name of the metric whose losses are compared; None where nobody races."""
        return self._quality.name if self.test is not None and self._quality is not None else None

    def __len__(self) -> int:
        return len(self._front)

    def rival_of(self, metrics: Mapping[str, Measurement]) -> Incumbent | None:
        """Of the trials that are no dearer in any static objective, the one of least loss. None: there is none.

        metrics  the candidate's static costs
        """
        if self.test is None:
            return None
        mine = self._vector(metrics)
        beaters = [r for r in self._front.values() if all(a <= b for a, b in zip(r.costs, mine, strict=True))]
        return min(beaters, key=lambda r: (r.loss, r.number), default=None)

    def keep(self, trial: Completed, losses: Losses | None) -> bool:
        """Take a trial in if it is on the front and within the limits; whom it beats goes. Whether it was taken in."""
        if self.test is None or self._quality is None or losses is None or trial.kind == "original":
            return False
        if len(losses) != self.test.total or violation(trial.metrics, self._limits) > 0.0:
            return False
        loss = self._quality.key(trial.metrics[self._quality.name].value)
        new = Incumbent(number=trial.number, costs=self._vector(trial.metrics), loss=loss, losses=losses)
        if any(_covers(old, new) for old in self._front.values()):
            return False
        self._front = {number: old for number, old in self._front.items() if not _covers(new, old)}
        if (len(self._front) + 1) * losses.nbytes > MEMORY:
            return False
        self._front[trial.number] = new
        return True

    def _vector(self, metrics: Mapping[str, Measurement]) -> tuple[float, ...]:
        return tuple(o.key(metrics[o.name].value) for o in self._costs)


def _covers(one: Incumbent, other: Incumbent) -> bool:
    return one.loss <= other.loss and all(a <= b for a, b in zip(one.costs, other.costs, strict=True))
