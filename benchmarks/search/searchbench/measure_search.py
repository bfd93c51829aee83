"""What a whole search of ResNet-20 costs, on two workers: its own work, its wall clock, its store."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from paredown.search import Run, open_run, search
from paredown.search._bench import Job
from paredown.search._groundwork import build_store
from paredown.search._pool import Pool
from paredown.search._prepare import Prepared, prepare
from paredown.search._ray import RayPool
from paredown.search._recorder import Recorder
from paredown.search._run import create_run
from paredown.search._sitting import Sitting

from .intervals import summary
from .problems import BITS, JOINT, PROBLEMS, Problem

N_TRIALS = 300
WORKERS = 2
N_TIMED = 60
"""Full evaluations that are timed, in blocks of `BLOCK` on all workers at once."""
BLOCK = 6
OWN_WORK = ("searcher", "ledger", "mirrors")
BEFORE = ("load", "start workers", "verification")
"""What is no part of the search: the model is read, processes start, and in the end points are verified."""


def whole_search(work: Path, *, samples: int = 2500) -> dict[str, Any]:
    """A 300-trial search as a user runs it (`paredown.search`: Ray, MLflow, Optuna's mirror, verification), and full
    evaluations of random candidates on the same kind of pool: own work, and wall clock over 300 evaluations."""
    spec = PROBLEMS["resnet20-bits"]
    assert isinstance(spec, Problem)
    folder = work / f"whole-search-{samples}"
    shutil.rmtree(folder, ignore_errors=True)
    task = spec.task("evolution", {}, 0, samples).with_overrides(
        [f"budget.trials={N_TRIALS}", "mlflow.enabled=true", "hardware.latency_seconds=0.1"]
    )
    search(task, out=folder / "run", workers=WORKERS)
    run = open_run(folder / "run")
    seconds = run.status()["seconds"]
    spent = run.status()["spent_s"]
    one = summary(list(_evaluations(task, run, work)))
    wall = spent - sum(seconds.get(name, 0.0) for name in BEFORE)
    own = sum(seconds.get(name, 0.0) for name in OWN_WORK)
    where = f"ResNet-20, weight bits, {samples} images, {WORKERS} workers of one thread"
    ratio = {key: wall / (N_TRIALS * one[key]) for key in ("figure", "low", "high")}
    ratio["low"], ratio["high"] = ratio["high"], ratio["low"]
    counts = run.status()["trials"]
    return {
        "own_work": {"figure": own / wall, "where": where, "wall_s": wall, "seconds": seconds, "trials": counts},
        "search_over_evaluations": {
            **ratio, "where": where, "wall_s": wall, "evaluation_s": one, "seconds": seconds, "trials": counts,
            "note": "table and baselines counted in; loading and verification not",
        },
    }  # fmt: skip


def _evaluations(task: Any, run: Run, work: Path) -> Iterator[float]:
    """Wall clock of one full evaluation, as the pool does them: seconds of a block over its jobs."""
    prepared = prepare(task, store=work / f"whole-search-{task.search.samples}" / "store")
    rng, n_levels = np.random.default_rng(0), run.space.n_levels
    with _workers(prepared) as pool:
        while not pool.idle:
            pool.wait(timeout_s=1.0)  # until a process is up
        for _ in range(N_TIMED // BLOCK + 1):
            jobs = [
                Job(method="race", args=(tuple(int(rng.integers(n)) for n in n_levels), "divergence", None, None))
                for _ in range(BLOCK)
            ]
            began, n_done = time.perf_counter(), 0
            while n_done < BLOCK:
                while pool.idle and jobs:
                    pool.submit(jobs.pop())
                for outcome in pool.wait(timeout_s=1.0):
                    if outcome.error:
                        raise RuntimeError(f"a full evaluation failed: {outcome.error}")
                    n_done += 1
            yield (time.perf_counter() - began) / BLOCK


def store(work: Path) -> dict[str, Any]:
    """Every layer of ResNet-20 at every level of both spaces together, twice."""
    spec = PROBLEMS["resnet20-joint"]
    assert isinstance(spec, Problem)
    levels = [dict(spec.space), dict(BITS)]
    widths = sorted({bits for space in levels for bits in space["weight_bits"]})
    folder = work / "store-benchmark"
    shutil.rmtree(folder, ignore_errors=True)
    task = spec.task("evolution", {}, 0).with_overrides([f"space.weight_bits={widths}"])
    rows = []
    for name in ("first", "second"):
        before = _files(folder / "store")
        run, ledger = create_run(folder / name, task)
        with ledger:
            prepared = prepare(task, store=folder / "store")
            with _workers(prepared) as pool:
                while not pool.idle:
                    pool.wait(timeout_s=1.0)
                sitting = Sitting(
                    run=run, recorder=Recorder(run, ledger, None), prepared=prepared, pool=pool,
                    stopping=threading.Event(),
                )  # fmt: skip
                began = time.perf_counter()
                build_store(sitting)
                rows.append({"seconds": time.perf_counter() - began, "built": len(_files(folder / "store") - before)})
    n_levels = [len(group.levels) for group in prepared.space.groups]
    where = f"ResNet-20, {len(n_levels)} layers, {sum(n_levels)} variants, bits {widths} × {_axes(JOINT)}"
    return {
        "store_s": {"figure": rows[0]["seconds"], "where": where, "built": rows[0]["built"]},
        "store_again": {"figure": rows[1]["built"], "where": where, "seconds": rows[1]["seconds"]},
    }


def _axes(space: Mapping[str, Any]) -> str:
    return " × ".join(f"{name} {values}" for name, values in space.items() if name != "weight_bits")


def _files(folder: Path) -> set[Path]:
    return set(folder.rglob("*.safetensors"))


@contextmanager
def _workers(prepared: Prepared) -> Iterator[Pool]:
    pool = RayPool(prepared.bench, workers=WORKERS, threads=1, address=None, modules=prepared.modules)
    try:
        yield pool
    finally:
        pool.close()
