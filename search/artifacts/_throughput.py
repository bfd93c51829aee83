"""Samples a second of a loaded model: at the batch that the task names, and at the best one."""

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
    """`throughput_per_s` at the `best_batch` within the limit (neither where no batch is), and what the batch of the
    task does: `throughput`, `ms_per_sample`. Call it inside the latency slot, pinned.

    batch         of the task's [hardware]; beyond the split's length, as large as that
    p95_limit_ms  of a whole batch; None: as long as it takes
    seconds       of runs for each size
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
