"""Samples a second of a loaded model: at the task's batch, and at the best batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...evaluators import Measurement

if TYPE_CHECKING:
    from ...evaluators import Split

BATCHES = (1, 2, 4, 8, 16, 32, 64)


def capacity(
    session: Any, split: Split, *, batch: int, p95_limit_ms: float | None, seconds: float
) -> dict[str, Measurement]:
    """Measure `throughput_per_s` at the `best_batch`, and `throughput` and `ms_per_sample` at the task's batch.

    The first two are absent where no batch keeps the limit. Call it pinned, inside the latency slot.

    batch         the task's [hardware] batch; a split that is shorter has no `throughput`
    p95_limit_ms  limit of the 95th percentile of a whole batch; None: no limit
    seconds       seconds of runs for each batch size
    """
    import numpy as np

    from ...evaluators.latency import throughput

    rng = np.random.default_rng(0)

    def timer(n: int) -> Callable[[], None]:
        inputs = split.take(n).inputs

        def run() -> None:
            session.run(inputs)

        return run

    limit = math.inf if p95_limit_ms is None else p95_limit_ms
    found: dict[str, Measurement] = {}
    sizes = [n for n in BATCHES if n <= len(split)] or [len(split)]
    best = throughput(timer, batches=sizes, p95_limit_ms=limit, seconds=seconds, rng=rng).best
    if best is not None:
        found["throughput_per_s"] = best.measurement()
        found["best_batch"] = Measurement(value=float(best.batch), n=len(best.samples))
    (own,) = throughput(timer, batches=[min(batch, len(split))], seconds=seconds, rng=rng).tried
    if own.batch == batch:
        found["throughput"] = own.measurement()
        found["ms_per_sample"] = own.ms_per_sample()
    return found
