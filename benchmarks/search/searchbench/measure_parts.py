"""What one proposal costs, and what a trial costs over the forward passes in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paredown.search import Candidate
from paredown.search.evaluation import Worker
from paredown.search.phases import one_blas_thread
from paredown.search.searchers import make_searcher
from paredown.search.values import OutputPerturbations
from paredown.testing import SyntheticProblem

from . import workbench
from .intervals import summary
from .problems import PROBLEMS, Problem

N_GROUPS, N_LEVELS, N_TOLD, N_ASKED = 400, 8, 10_000, 200
N_PAIRS = 60
N_SITES, N_CLASSES = 102, 10
"""Of the outputs' shifts: as many numbers a row as a table keeps."""


def ask() -> dict[str, Any]:
    """CPU time of one `ask` and the `tell` of its result, after 10,000 trials; the goal is about the mean, so that
    refitting now and then is paid for. With a table as a real net gives it, which knows where the levels push the
    outputs, and with one of divergences alone. In one BLAS thread, as a search has it."""
    note = "mean CPU time; the interval is of the median"
    with one_blas_thread():
        return {
            "ask_ms": {**_asked(shifts=True), "note": note},
            "ask_without_shifts_ms": {**_asked(shifts=False), "note": note},
        }


def _asked(*, shifts: bool) -> dict[str, Any]:
    problem = SyntheticProblem(n_groups=N_GROUPS, n_levels=N_LEVELS)
    given = problem.context()
    if shifts:
        given = replace(given, table=replace(problem.table, perturbations=_shifts(problem)))
    searcher = make_searcher("evolution", given)
    rng = np.random.default_rng(0)
    uniform = problem.uniform()
    searcher.tell([problem.trial(number, candidate) for number, candidate in enumerate(uniform)])
    for number in range(N_TOLD):
        steps = rng.random(N_GROUPS) < rng.random()
        levels = np.where(steps, rng.integers(N_LEVELS, size=N_GROUPS), rng.integers(N_LEVELS))
        candidate = Candidate(levels=tuple(int(level) for level in levels))
        searcher.tell([problem.trial(len(uniform) + number, candidate)])
    asks, tells = [], []
    for number in range(N_ASKED):
        start = time.process_time()
        (candidate,) = searcher.ask(1)
        asked = time.process_time()
        trial = problem.trial(len(uniform) + N_TOLD + number, candidate)
        before_tell = time.process_time()
        searcher.tell([trial])
        asks.append(1000.0 * (asked - start))
        tells.append(1000.0 * (time.process_time() - before_tell))
    return {
        **summary(asks), "figure": float(np.mean(asks)), "median": float(np.median(asks)),
        "tell_ms": float(np.mean(tells)),
        "where": f"{N_GROUPS} groups × {N_LEVELS} levels, {N_TOLD} trials, {'with' if shifts else 'without'} shifts",
    }  # fmt: skip


def _shifts(problem: SyntheticProblem) -> OutputPerturbations:
    """Random pushes on the log-probabilities of ten classes, as long as the table's divergences say to second order
    (½ Σ p (Δ - mean Δ)², with p the original's): what they cost depends on their number alone."""
    rng = np.random.default_rng(1)
    logits = 3.0 * rng.normal(size=(N_SITES, N_CLASSES))
    reference = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    p, rows = np.exp(reference), []
    for divergences in problem.table.divergence:
        pushes = rng.normal(size=(len(divergences), N_SITES, N_CLASSES))
        pushes -= (p * pushes).sum(axis=2, keepdims=True)
        lengths = 0.5 * (p * pushes**2).sum(axis=2).mean(axis=1)
        pushes *= np.sqrt(np.asarray(divergences) / lengths)[:, None, None]
        rows.append(pushes.reshape(len(divergences), -1).astype(np.float32))
    return OutputPerturbations(
        kind="kl", reference=reference.astype(np.float32), base=np.zeros(N_SITES * N_CLASSES, dtype=np.float32),
        rows=tuple(rows),
    )  # fmt: skip


def trial(work: Path, *, samples: int = 512) -> dict[str, Any]:
    """A trial of ResNet-20 against bare forward passes of the compressed model over the same batches, in turns."""
    spec = PROBLEMS["resnet20-bits"]
    assert isinstance(spec, Problem)
    task = spec.task("random", {}, 0, samples)
    with workbench.opened(task, work / "trial-benchmark", work / "store") as bench:
        problem = bench.problem
        worker = Worker(problem.context)
        rng, n_levels = np.random.default_rng(0), problem.space.n_levels
        wall, cpu = [], []
        for pair in range(N_PAIRS + 1):
            levels = tuple(int(rng.integers(n)) for n in n_levels)
            assignment = problem.space.assignment(Candidate(levels=levels))
            worker.candidate_model.layers.variants(assignment)  # from the disk, once
            sides = {}
            for side in ("trial", "forward") if pair % 2 else ("forward", "trial"):
                sides[side] = _trial(worker, levels) if side == "trial" else _forward_only(worker, levels)
            if pair:  # the first warms up
                wall.append(sides["trial"][0] / sides["forward"][0])
                cpu.append(sides["trial"][1] / sides["forward"][1])
        where = f"ResNet-20, {bench.full} images in batches of {problem.context.batch_size}, one thread"
    found = summary(wall)
    return {
        "trial_over_forward": {**found, "cpu_time": summary(cpu), "where": where, "threads": torch.get_num_threads()}
    }


def _trial(worker: Worker, levels: tuple[int, ...]) -> tuple[float, float]:
    """As the product evaluates a candidate that nobody beats on the way."""
    return _timed(lambda: worker.evaluate(Candidate(levels=levels), quality="divergence"))


def _forward_only(worker: Worker, levels: tuple[int, ...]) -> tuple[float, float]:
    """Wall clock and CPU time of the model alone: compressed, in inference mode, batches already cut."""
    bench = worker.context
    assignment = bench.space.assignment(Candidate(levels=levels))
    batches = [inputs for inputs, _ in bench.split.batches(bench.batch_size)]
    layers = worker.candidate_model.layers
    with layers.resident.apply(assignment, layers.variants(assignment)), torch.inference_mode():

        def forward() -> None:
            for inputs in batches:
                bench.model(inputs)

        return _timed(forward)


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu
