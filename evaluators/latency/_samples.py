"""Times of one model's runs, and their percentiles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..values import Measurement

RANKED_BY = 10
"""Percentile by which models are ranked: the code's own cost when nothing else was running."""
REPORTED = (10, 50, 90, 95, 99)
N_RESAMPLES = 10_000
TAIL = 0.025
"""Share of the bootstrap beyond either end of an interval."""


@dataclass(frozen=True, slots=True)
class LatencySamples:
    """Samples of one model's latency.

    ms  one time in milliseconds for each run, in the order of the runs; all finite and not negative
    """

    ms: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.ms:
            raise ValueError("latency samples must hold at least one time, got none")
        if bad := [time for time in self.ms if not (math.isfinite(time) and time >= 0.0)]:
            raise ValueError(f"latency samples must be finite and not negative, got {bad[0]} ms")

    def __len__(self) -> int:
        return len(self.ms)

    def percentile(self, q: float) -> float:
        """Percentile q in (0, 100]: the smallest time that at least q % of the runs did not exceed."""
        return sorted(self.ms)[self._rank(q) - 1]

    def measurements(self) -> dict[str, Measurement]:
        """Measurements of p10, p50, p90, p95 and p99 in milliseconds, each with its interval, where the runs bound it;
        no samples.

        A bound is None where more than one session in forty of so many runs would have no run beyond the percentile at
        all, however far beyond it lies: of p99 with fewer than 368 runs, of p95 with fewer than 72, nothing here says
        how high it may be.
        """
        found = {}
        for q in REPORTED:
            low, high = self._interval(q)
            n, share = len(self.ms), q / 100
            found[f"p{q}"] = Measurement(
                value=self.percentile(q), unit="ms", n=n,
                low=None if (1 - share) ** n > TAIL else low, high=None if share**n > TAIL else high,
            )  # fmt: skip
        return found

    def measurement(self, *, keep_samples: bool = True) -> Measurement:
        """Measurement of p10 with its 95 % bootstrap interval, in milliseconds; deterministic.

        It is over runs of this one session, as if they were independent. Machines drift, so what two sessions differ by
        is the matter of the A/A test (`compare`).
        """
        low, high = self._interval(RANKED_BY)
        return Measurement(
            value=self.percentile(RANKED_BY),
            unit="ms",
            low=low,
            high=high,
            n=len(self.ms),
            samples=self.ms if keep_samples else (),
        )

    def _rank(self, q: float) -> int:
        if not 0 < q <= 100:
            raise ValueError(f"a percentile must be in (0, 100], got {q}")
        return max(1, math.ceil(q / 100 * len(self.ms) - 1e-9))  # 10 % of 30 is 3, and 3.0000000000000004 is too

    def _interval(self, q: float) -> tuple[float, float]:
        """Bootstrap interval: the k-th smallest of n draws with replacement is the sample at rank ⌈nU⌉ with U ~ Beta(k,
        n + 1 - k).

        Drawn so, a bootstrap of a percentile costs the same for 60 runs and for 60,000.
        """
        n, k = len(self.ms), self._rank(q)
        draws = np.random.default_rng(0).beta(k, n + 1 - k, N_RESAMPLES)
        ranks = np.clip(np.ceil(n * np.quantile(draws, (TAIL, 1 - TAIL))).astype(int), 1, n)
        ordered = sorted(self.ms)
        return ordered[ranks[0] - 1], ordered[ranks[1] - 1]
