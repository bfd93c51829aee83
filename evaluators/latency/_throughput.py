"""Samples a second at the best batch: another question than latency at batch 1."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import InputError
from ._interleaved import Timer, interleaved
from ._samples import LatencySamples

if TYPE_CHECKING:
    import numpy as np

BATCHES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTimes:
    """One batch size. samples_per_s: over all its runs, the slow ones too."""

    batch: int
    samples: LatencySamples

    @property
    def samples_per_s(self) -> float:
        return self.batch * len(self.samples) / max(sum(self.samples.ms) / 1e3, 1e-12)

    @property
    def p95_ms(self) -> float:
        return self.samples.percentile(95)


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """The batch sizes that were tried, and the best: most samples a second, of those within the limit (None: none)."""

    tried: tuple[BatchTimes, ...]
    best: BatchTimes | None


def throughput(
    timer_of: Callable[[int], Timer],
    *,
    batches: Sequence[int] = BATCHES,
    p95_limit_ms: float = math.inf,
    seconds: float = 0.3,
    rng: np.random.Generator,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Throughput:
    """timer_of      batch size -> a call that runs such a batch once
    p95_limit_ms  of one whole batch: nobody waits longer than that in 95 of 100 cases
    seconds       of runs for each size

    From the smallest on; a size that misses the limit ends it, for the next ones take longer still.
    """
    if not batches or min(batches) < 1:
        raise InputError(f"batch sizes must be 1 or more, got {list(batches)}")
    tried: list[BatchTimes] = []
    for batch in sorted(set(batches)):
        samples = interleaved(
            {"batch": timer_of(batch)}, min_rounds=20, min_seconds=seconds, max_seconds=10 * seconds + 1.0,
            warmup_rounds=3, rng=rng, clock=clock,
        )["batch"]  # fmt: skip
        tried.append(BatchTimes(batch=batch, samples=samples))
        if tried[-1].p95_ms > p95_limit_ms:
            break
    within = [times for times in tried if times.p95_ms <= p95_limit_ms]
    return Throughput(tried=tuple(tried), best=max(within, key=lambda t: t.samples_per_s, default=None))
