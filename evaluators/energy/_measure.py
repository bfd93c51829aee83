"""Energy of a call, by a counter read before and after many of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import fmean, stdev

from ...errors import InputError
from ..values import Measurement
from ._counters import Counter


def measure_energy(
    run: Callable[[], object], counters: Sequence[Counter], *, seconds: float = 1.0, blocks: int = 10, batch: int = 1
) -> Measurement:
    """Millijoules of one sample: the mean over blocks of calls, with a 95 % interval from their spread.

    run      one inference of `batch` samples, finished when it returns (synchronise a GPU inside)
    seconds  at least so long in all; RAPL is renewed about every millisecond and NVML every 20 to 100 ms, so that less
             than a second says little

    What the device draws anyway is in it, and so is whatever else it does meanwhile.
    Raises `InputError` without a counter: model it from a profile instead.
    """
    if not counters:
        raise InputError(
            "no energy counter can be read here (RAPL takes root, and a virtual machine has none); the energy is then "
            "modelled from the hardware profile"
        )
    if blocks < 2:
        raise InputError(f"blocks must be 2 or more, for there is no spread in one, got {blocks}")
    run()
    found = [_block(run, counters, seconds / blocks, batch) for _ in range(blocks)]
    mean, half = fmean(found), 1.96 * stdev(found) / len(found) ** 0.5
    return Measurement(
        value=mean, unit="mJ", low=mean - half, high=mean + half, source="measured", n=len(found), samples=tuple(found)
    )


def _block(run: Callable[[], object], counters: Sequence[Counter], seconds: float, batch: int) -> float:
    before, start, n = sum(c.read_mj() for c in counters), time.perf_counter(), 0
    while n == 0 or time.perf_counter() - start < seconds:
        run()
        n += 1
    return (sum(c.read_mj() for c in counters) - before) / (n * batch)
