"""What a whole search of ResNet-20 costs, on two workers: its own work, its wall clock, its store."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from paredown.search import Candidate, Progress, open_run
from paredown.search import _search as driver
from paredown.search.evaluation import AnyJob, AnyOutcome, EvaluateCandidate
from paredown.search.phases import Clock, JobRunner, VerifyInputs, build_store
from paredown.search.problem import Problem as SearchProblem
from paredown.search.problem import prepare
from paredown.search.run import LedgerRecorder, Stopwatch, create_run
from paredown.search.workers import Pool, RayPool

from .intervals import summary
from .problems import BITS, JOINT, PROBLEMS, Problem

N_TRIALS = 300
WORKERS = 2
N_BLOCKS, BLOCK = 12, 8
"""Full evaluations are timed in so many blocks, of so many on all workers at once, evenly among the trials."""
NO_TRIAL = -1
"""Number of a job that belongs to no trial of the search."""
OWN_WORK = ("searcher", "ledger", "mirrors")
BEFORE = ("load", "start workers", "start mirrors", "verification")
"""What is no part of the search: the model is read, processes start, MLflow is imported while they do, the original is
exported."""


def whole_search(
    work: Path, *, samples: int, n_trials: int = N_TRIALS, n_blocks: int = N_BLOCKS, block: int = BLOCK
) -> dict[str, Any]:
    """A search as a user runs it (`paredown.search`: Ray, MLflow, Optuna's mirror) but without verification, in a
    folder of its own with an empty store, and among its trials full evaluations of random candidates on the same
    workers: own work, and wall clock over that of as many full evaluations."""
    spec = PROBLEMS["resnet20-bits"]
    assert isinstance(spec, Problem)
    folder = work / f"whole-search-{samples}"
    shutil.rmtree(folder, ignore_errors=True)  # one that was cut off is no measurement
    task = spec.task("evolution", {}, 0, samples).with_overrides(
        [f"budget.trials={n_trials}", "mlflow.enabled=true", "hardware.latency_seconds=0.1"]
    )
    blocks: list[float] = []
    cpu: dict[str, float] = {}
    with _interleaved(blocks, every=max(1, n_trials // n_blocks), block=block), _cpu_by_purpose(cpu):
        driver.run_search(
            task, out=folder / "run", workers=WORKERS, progress=_Lines(f"{samples} images"), verify=_unverified
        )
    status = open_run(folder / "run").status()
    seconds = dict(status["seconds"])
    seconds["evaluation"] -= sum(blocks)
    one = summary([taken / block for taken in blocks])
    wall = status["spent_s"] - sum(blocks) - sum(seconds.get(name, 0.0) for name in BEFORE)
    own = sum(seconds.get(name, 0.0) for name in OWN_WORK)
    start = seconds.get("start mirrors", 0.0)
    where = f"ResNet-20, weight bits, {samples} images, {n_trials} trials, {WORKERS} workers of one thread"
    ratio = {key: wall / (n_trials * one[key]) for key in ("figure", "low", "high")}
    ratio["low"], ratio["high"] = ratio["high"], ratio["low"]
    common = {"where": where, "wall_s": wall, "seconds": seconds, "trials": status["trials"]}
    return {
        "own_work": {
            "figure": own / wall, **common, "with_start_mirrors": (own + start) / (wall + start),
            "parts": {name: seconds.get(name, 0.0) / wall for name in OWN_WORK},
            "cpu_seconds": {name: round(cpu.get(name, 0.0), 3) for name in (*OWN_WORK, "start mirrors")},
            "note": f"MLflow's import and tables ({start:.1f} s) go on while the workers start, and are not counted in",
        },
        "search_over_evaluations": {
            **ratio, **common, "evaluation_s": one, "samples_ratio": _samples(status, samples, n_trials),
            "note": "store, table and baselines counted in; loading, starting and verification not; "
            f"{len(blocks)} blocks of {block} full evaluations among the trials",
        },
    }  # fmt: skip


def _samples(status: Mapping[str, Any], samples: int, n_trials: int) -> float:
    """Samples that the trials passed over those of as many full evaluations: what no machine makes faster."""
    return float(status["samples"] / (samples * n_trials))


class _Interleaved:
    """The search's own pool; after every so many trials it comes to rest, and the workers do a block of full
    evaluations, which is timed. That a worker waits for the other before a block counts against the search."""

    def __init__(self, pool: Pool, problem: SearchProblem, blocks: list[float], *, every: int, block: int) -> None:
        self._pool, self._prepared, self._blocks = pool, problem, blocks
        self._every, self._block = every, block
        self._rng = np.random.default_rng(0)
        self._n_trials, self._ready = 0, list[AnyOutcome]()

    @property
    def idle(self) -> int:
        return 0 if self._ready else self._pool.idle

    @property
    def busy(self) -> int:
        return self._pool.busy + len(self._ready)

    def submit(self, job: AnyJob) -> None:
        self._pool.submit(job)

    def wait(self, timeout_s: float | None = None) -> list[AnyOutcome]:
        ready, self._ready = self._ready, []
        outcomes = ready or self._pool.wait(timeout_s)
        trials = sum(isinstance(outcome.job, EvaluateCandidate) for outcome in outcomes)
        if not ready and self._n_trials // self._every != (self._n_trials + trials) // self._every:
            while self._pool.busy:
                self._ready += self._pool.wait(1.0)
            self._n_trials += sum(isinstance(outcome.job, EvaluateCandidate) for outcome in self._ready)
            self._blocks.append(self._evaluate())
        self._n_trials += trials if not ready else 0
        return outcomes

    def _evaluate(self) -> float:
        """Wall clock of a block."""
        n_levels = self._prepared.space.n_levels
        jobs = [
            EvaluateCandidate(
                number=NO_TRIAL,
                kind="mixed",
                quality="divergence",
                candidate=Candidate(levels=tuple(int(self._rng.integers(n)) for n in n_levels)),
            )
            for _ in range(self._block)
        ]
        began, n_done = time.perf_counter(), 0
        while n_done < self._block:
            while self._pool.idle and jobs:
                self._pool.submit(jobs.pop())
            for outcome in self._pool.wait(timeout_s=1.0):
                if outcome.error:
                    raise RuntimeError(f"a full evaluation failed: {outcome.error}")
                n_done += 1
        return time.perf_counter() - began

    def close(self) -> None:
        self._pool.close()


@contextmanager
def _interleaved(blocks: list[float], *, every: int, block: int) -> Iterator[None]:
    """Puts that pool into the driver. Its workers are up before the search begins: waiting for them is no search."""
    original = driver.open_pool

    @contextmanager
    def pool(problem: SearchProblem, workers: int, *, ray_address: str | None = None) -> Iterator[Pool]:
        with original(problem, workers, ray_address=ray_address) as inner:
            while inner.idle < workers:
                inner.wait(timeout_s=1.0)
            yield _Interleaved(inner, problem, blocks, every=every, block=block)

    driver.open_pool = pool
    try:
        yield
    finally:
        driver.open_pool = original


def _unverified(inputs: VerifyInputs) -> None:
    """Verify nothing: exports and their clocks take minutes, and say nothing of the search."""


@contextmanager
def _cpu_by_purpose(found: dict[str, float]) -> Iterator[None]:
    """Adds up the driver's CPU time as its stopwatch does the wall clock: what does not hang on who else is at work."""
    original = Stopwatch.charge
    within: list[float] = []

    @contextmanager
    def charge(self: Stopwatch, name: str) -> Iterator[None]:
        start = time.process_time()
        within.append(0.0)
        try:
            with original(self, name):
                yield
        finally:
            took = time.process_time() - start
            found[name] = found.get(name, 0.0) + took - within.pop()
            if within:
                within[-1] += took

    Stopwatch.charge = charge  # type: ignore[method-assign]
    try:
        yield
    finally:
        Stopwatch.charge = original  # type: ignore[method-assign]


class _Lines:
    """A line on stderr now and then."""

    def __init__(self, title: str, every_s: float = 15.0) -> None:
        self._title, self._every_s, self._phase, self._at = title, every_s, "", 0.0

    def __call__(self, progress: Progress) -> None:
        if progress.phase and (progress.phase != self._phase or time.monotonic() - self._at > self._every_s):
            self._phase, self._at = progress.phase, time.monotonic()
            count = f" {progress.done}/{progress.total}" if progress.total else ""
            print(f"{self._title}: {progress.phase}{count}, {progress.spent_s:.0f} s", file=sys.stderr, flush=True)


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
            problem = prepare(task, store=folder / "store")
            with _workers(problem) as pool:
                while not pool.idle:
                    pool.wait(timeout_s=1.0)
                recorder = LedgerRecorder(run.state, task.budget, ledger=ledger)
                clock = Clock(
                    budget=task.budget, state=run.state, watch=recorder.watch, stopping=threading.Event(), run=run.path
                )  # fmt: skip
                began = time.perf_counter()
                build_store(problem, JobRunner(pool=pool, clock=clock), recorder, folder=run.path)
                rows.append({"seconds": time.perf_counter() - began, "built": len(_files(folder / "store") - before)})
    n_levels = [len(group.levels) for group in problem.space.groups]
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
def _workers(problem: SearchProblem) -> Iterator[Pool]:
    pool = RayPool(problem.context, workers=WORKERS, threads=1, address=None, modules=problem.modules)
    try:
        yield pool
    finally:
        pool.close()
