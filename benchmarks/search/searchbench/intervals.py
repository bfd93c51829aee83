"""A median and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

N_RESAMPLES = 2000


def summary(values: Sequence[float], *, seed: int = 0) -> dict[str, Any]:
    """Median with its 95 % bootstrap interval, the 95th percentile, and how many there are."""
    samples = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    medians = np.median(rng.choice(samples, size=(N_RESAMPLES, len(samples))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return {
        "figure": float(np.median(samples)),
        "low": float(low),
        "high": float(high),
        "p95": float(np.percentile(samples, 95)),
        "n": len(samples),
    }
