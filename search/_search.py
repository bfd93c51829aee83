"""The search: a run from its task to its front.

The phases are store, baselines, table, exploration and verification; a report follows. Each phase reads the state of
the run first and does what is missing, so a run that was killed anywhere goes on from there.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..errors import InputError, Interrupted, LimitsNotMet, TaskError
from ._run_view import Run
from .front import Front
from .mirrors import Mirrors
from .phases import (
    Clock,
    JobRunner,
    TableInputs,
    VerifyInputs,
    build_store,
    check_exports,
    check_results,
    evaluate_baselines,
    explore,
    measure_table,
    one_blas_thread,
    record_facts,
    settle_repairs,
    verify_points,
)
from .plans import planned_seeds
from .problem import FILE as CHOICE
from .problem import describe_runtime_choice, prepare, settle_runtime
from .run import (
    SCHEMA_VERSION,
    LedgerRecorder,
    Listener,
    Recorder,
    StoredRun,
    create_run,
    freeze_gc,
    gc_frozen,
    new_run_path,
    read_run,
    store_path,
    write_atomic,
)
from .space import (
    describe_calls,
    describe_kv_cache,
    describe_left_alone,
    describe_places,
    describe_products,
    describe_saturation,
    describe_unmasked,
)
from .task import as_task, settle_profile, usable_cores
from .workers import open_pool

if TYPE_CHECKING:
    from torch import nn

    from .problem import Problem
    from .task import Task


def search(
    task: Task | Mapping[str, Any] | Path | str,
    *,
    model: nn.Module | None = None,
    out: Path | str | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    progress: Listener | None = None,
) -> Front:
    """Search the task's space within its budget, verify the front, and return it.

    task         a `Task`, the path of a TOML file, or the same as a dict
    model        the model itself, where the task names none; a resumed run needs it again
    out          folder of the run; one that holds this very task's run goes on from there. Default: a new one in
                 `runs/`
    workers      processes on Ray; 0 runs everything here, and then a seed gives the same trials again. Default: the
                 cores
    ray_address  of a running Ray cluster
    progress     called with a `Progress` now and then

    Where the task names several devices, the front is that of the first on which points meet the limits.

    Raises `InputError` for a task that cannot be used, `NothingVerified` if the runtime runs no compressed form of the
    model or no candidate of the search could be evaluated, `LimitsNotMet` if no point meets the limits on any device,
    `Interrupted` when stopped by a signal: everything found so far is kept, and `resume` goes on.
    """
    return run_search(task, model=model, out=out, workers=workers, ray_address=ray_address, progress=progress)


def run_search(
    task: Task | Mapping[str, Any] | Path | str,
    *,
    model: nn.Module | None = None,
    out: Path | str | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    progress: Listener | None = None,
    verify: Callable[[VerifyInputs], None] = verify_points,
) -> Front:
    """Do what `search` does, with another verifier.

    verify  called once after the trials; it records the verified points
    """
    task = as_task(task)
    if model is None and task.model is None:
        raise TaskError("the task names no [model]; give factory, huggingface or export there, or pass model=")
    workers = usable_cores() if workers is None else workers
    if workers < 0:
        raise InputError(f"--workers must be 0 (everything in this process) or more, got {workers}")
    folder = Path(out) if out is not None else new_run_path(task)
    task, choice = settle_runtime(task, model=model, run=folder)
    task = settle_profile(task, run=folder)
    run, ledger = create_run(folder, task)
    with ledger:
        recorder = LedgerRecorder(run.state, task.budget, progress, ledger=ledger, workers=workers)
        if choice is not None:
            write_atomic(run.path / CHOICE, json.dumps(choice, indent=2) + "\n")
            recorder.note(describe_runtime_choice(choice))
        return _drive(run, recorder, model, workers, ray_address, verify)


def resume(
    run: Path | str,
    *,
    model: nn.Module | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    progress: Listener | None = None,
) -> Front:
    """Go on with a run that was stopped or killed. `run` is its folder."""
    stored = read_run(run)
    return search(
        stored.task, model=model, out=stored.path, workers=workers, ray_address=ray_address, progress=progress
    )


def _drive(
    run: StoredRun,
    recorder: LedgerRecorder,
    model: nn.Module | None,
    workers: int,
    ray_address: str | None,
    verify: Callable[[VerifyInputs], None],
) -> Front:
    """Take a run from its task to its front, and record how it ended."""
    recorder.append({"type": "started", "schema_version": SCHEMA_VERSION})
    recorder.say("load")
    with recorder.watch.charge("load"):
        problem = prepare(run.task, store=store_path(run.path), model=model)
        known = run.state.facts.repair if run.state.facts is not None else None
        problem = settle_repairs(problem, known)
    _note_space(problem, recorder)
    mirrors = Mirrors(run, recorder.note)
    clock = Clock(
        budget=run.task.budget, state=run.state, watch=recorder.watch, stopping=threading.Event(), workers=workers,
        run=run.path,
    )  # fmt: skip
    with _signals(clock.stopping), gc_frozen(), one_blas_thread():
        try:
            with ExitStack() as stack:
                with recorder.watch.charge("start workers"):
                    pool = stack.enter_context(open_pool(problem, workers, ray_address=ray_address))
                with recorder.watch.charge("start mirrors"):
                    mirrors.open()  # while the workers come up
                freeze_gc()
                found = _search(run, problem, JobRunner(pool=pool, clock=clock), recorder, mirrors)
            clock.stop_if_asked()
            with recorder.watch.charge("verification"):
                verify(found)
            clock.stop_if_asked()
        except Interrupted:
            _end(recorder, mirrors, "interrupted")
            raise
        recorder.say("report")
        _end(recorder, mirrors, "done")
    recorder.say("done")
    check_results(run)
    return _first_front(Run(run.path, run.task, run.state))


def _note_space(problem: Problem, recorder: Recorder) -> None:
    """Note the layers that are left alone, and what the chosen runtime and profile do to the space."""
    model, task = problem.context.model, problem.task
    for line in (
        *problem.notes,
        *describe_left_alone(model, problem.anatomy),
        *describe_places(problem.places),
        *describe_products(problem.anatomy, problem.space),
        *describe_calls(problem.anatomy, problem.space),
        *describe_unmasked(problem.context.calibration),
        *describe_saturation(task, problem.space, [device.profile for device in problem.devices]),
    ):
        recorder.note(line)
    if task.model is not None and task.model.kv_cache_bits is not None:
        recorder.note(describe_kv_cache(model, task.model.kv_cache_bits))


def _search(
    run: StoredRun, problem: Problem, runner: JobRunner, recorder: LedgerRecorder, mirrors: Mirrors
) -> VerifyInputs:
    """Go through the phases up to the last trial; the verification comes when the workers are closed."""

    def mirror() -> None:
        if mirrors.due:
            recorder.times()  # so that the mirrors, and `paredown status`, show the seconds by purpose
            with recorder.watch.charge("mirrors"):
                mirrors.sync(final=False)

    costs = build_store(problem, runner, recorder, folder=run.path)
    record_facts(run, costs, recorder)
    found = VerifyInputs(run=run, problem=problem, recorder=recorder, clock=runner.clock, latency=costs.latency)
    check_exports(found)
    trials = evaluate_baselines(costs, runner, recorder)
    table = measure_table(TableInputs(costs=costs, limits=trials.limits, runner=runner, recorder=recorder))
    seeds = planned_seeds(costs, table, recorder)
    explore(trials, runner, recorder, table, after_each=mirror, seeds=seeds)
    recorder.times()
    return found


def _end(recorder: LedgerRecorder, mirrors: Mirrors, how: str) -> None:
    """Record how the run ended, then bring the mirrors up to date: they show it, and may fail."""
    recorder.times()
    recorder.append({"type": "ended", "how": how})
    with recorder.watch.charge("mirrors"):
        mirrors.sync(final=True)
    recorder.times()


def _first_front(run: Run) -> Front:
    """Return the front of the first device on which points meet the limits. Raises `LimitsNotMet` if there is none."""
    fronts = [run.front(), *(run.front(profile=name) for name in run.facts().profiles[1:])]
    for front in fronts:
        if front.nearest is None:
            return front
    raise LimitsNotMet(f"no point meets the limits; {fronts[0].nearest}. The run is in {run.path}")


@contextmanager
def _signals(stopping: threading.Event) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM asks for an orderly stop; a second one interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
