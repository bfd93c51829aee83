"""Throughput: samples a second at the best batch, in contrast to latency at batch 1."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import InputError
from ..values import Measurement
from ._interleaved import Timer, interleaved
from ._samples import LatencySamples

BATCHES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTimes:
    """Times of one batch size. samples_per_s: over all its runs, the slow ones too."""

    batch: int
    samples: LatencySamples

    @property
    def samples_per_s(self) -> float:
        return self.batch * len(self.samples) / max(sum(self.samples.ms) / 1e3, 1e-12)

    @property
    def p95_ms(self) -> float:
        return self.samples.percentile(95)

    def ms_per_sample(self) -> Measurement:
        """Mean over all runs, with a 95 % interval from their spread."""
        ms = np.asarray(self.samples.ms) / self.batch
        half = 1.96 * float(ms.std(ddof=1)) / len(ms) ** 0.5 if len(ms) > 1 else math.inf
        mean = float(ms.mean())
        low, high = (max(0.0, mean - half), mean + half) if math.isfinite(half) else (None, None)
        return Measurement(value=mean, low=low, high=high, unit="ms", n=len(ms))

    def measurement(self) -> Measurement:
        """Samples a second, with the interval of their mean time."""
        time = self.ms_per_sample()
        low, high = (1e3 / bound if bound else None for bound in (time.high, time.low))
        return Measurement(value=self.samples_per_s, low=low, high=high, unit="samples/s", n=time.n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Tried batch sizes, and the best: most samples a second within the limit (None: no size is within it)."""

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
    """Find the batch size of the highest throughput.

    timer_of      batch size -> a call that runs such a batch once
    p95_limit_ms  limit on the 95th percentile of a whole batch's time
    seconds       of runs for each size

    Sizes are tried from the smallest on, until one misses the limit, as larger ones take longer still.
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
