"""Workers for a problem, closed at the end of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..problem import Problem
from ..task import usable_cores
from ._in_process import InProcess, Pool
from ._ray import RayPool


@contextmanager
def open_pool(problem: Problem, workers: int, *, ray_address: str | None = None) -> Iterator[Pool]:
    """Yield a pool that evaluates candidates of the problem.

    workers      processes on Ray, which share the cores; 0: this process does everything
    ray_address  address of a running Ray cluster; None starts one here
    """
    pool: Pool
    if workers == 0:
        pool = InProcess(problem.context)
    else:
        threads = max(1, usable_cores() // workers)
        pool = RayPool(problem.context, workers=workers, threads=threads, address=ray_address, modules=problem.modules)
    try:
        yield pool
    finally:
        pool.close()
