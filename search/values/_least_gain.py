"""The least lead over a baseline that is worth telling."""

from __future__ import annotations

import math
from dataclasses import dataclass

LEAST_POINTS = 0.002
"""Default for a metric of a bounded range, as a share of its largest magnitude: .2 points of accuracy."""
LEAST_SHARE = 0.01
"""Default for any other metric, as a share of the baseline's figure: 1 % of a perplexity."""
LEAST_SAVING = 0.05
"""Share of a cost that a point must save where it is as good as a dearer baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastGain:
    """Least lead in the metric.

    amount       in the metric's unit, or a share
    is_relative  True if the amount is a share of the baseline's figure
    """

    amount: float
    is_relative: bool

    @classmethod
    def of_metric(cls, bounds: tuple[float, float], wanted: float | None) -> LeastGain:
        """Return the least gain of a metric.

        bounds  least and greatest possible figure of the metric; infinite where there is no bound
        wanted  `[search] least_gain`; None: the default
        """
        is_relative = not all(math.isfinite(bound) for bound in bounds)
        if wanted is not None:
            return cls(amount=wanted, is_relative=is_relative)
        points = LEAST_POINTS * max(abs(bound) for bound in bounds)
        return cls(amount=LEAST_SHARE if is_relative else points, is_relative=is_relative)

    def over(self, figure: float) -> float:
        """Least lead over a baseline with this figure, in the metric's unit."""
        return self.amount * abs(figure) if self.is_relative else self.amount
