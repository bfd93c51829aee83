"""A run from its task to its front.

store -> baselines -> table -> search -> verify -> report. Each phase looks at the ledger first and does what is
missing, so that a run that was killed anywhere goes on from there.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..errors import InputError, Interrupted, LimitsNotMet, TaskError
from ._run_view import Run
from .front import Front
from .mirrors import Mirrors
from .phases import (
    SearchSession,
    build_store,
    evaluate_baselines,
    explore,
    export_original,
    measure_table,
    one_blas_thread,
    verify_points,
)
from .plans import planned_seeds
from .problem import FILE as CHOICE
from .problem import Problem, describe_runtime_choice, prepare, settle_runtime
from .run import (
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
from .space import describe_kv_cache, describe_left_alone, describe_products, describe_saturation
from .task import as_task, settle_profile, usable_cores
from .workers import InProcess, Pool

if TYPE_CHECKING:
    from torch import nn

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
    """Search the task's space within its budget, verify the front, and give it back.

    task         a `Task`, the path of a TOML file, or the same as a dict
    model        the model itself, where the task names none; a resumed run needs it again
    out          folder of the run; one that holds this very task's run goes on from there. Default: a new one in
                 `runs/`
    workers      processes on Ray; 0 runs everything here, and then a seed gives the same trials again. Default: the
                 cores
    ray_address  of a running Ray cluster
    progress     called with a `Progress` now and then

    Of several devices the first on which points meet the limits has its front given back.

    Raises `InputError` for a task that cannot be used, `LimitsNotMet` if no point meets the limits on any device,
    `Interrupted` when stopped by a signal: what was found so far is kept, and `resume` goes on.
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
    verify: Callable[[SearchSession], None] = verify_points,
) -> Front:
    """Do what `search` does, with another verifier.

    verify  called once after the trials; it records the verified points
    """
    task = as_task(task)
    if model is None and task.model is None:
        raise TaskError("the task names no [model]; give factory, huggingface or export there, or pass model=")
    folder = Path(out) if out is not None else new_run_path(task)
    task, choice = settle_runtime(task, model=model, run=folder)
    task = settle_profile(task, run=folder)
    run, ledger = create_run(folder, task)
    with ledger:
        if choice is not None:
            write_atomic(run.path / CHOICE, json.dumps(choice, indent=2) + "\n")
            Recorder(run, ledger, progress).note(describe_runtime_choice(choice))
        return _drive(run, Recorder(run, ledger, progress), model, workers, ray_address, verify)


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
    recorder: Recorder,
    model: nn.Module | None,
    workers: int | None,
    ray_address: str | None,
    verify: Callable[[SearchSession], None],
) -> Front:
    workers = usable_cores() if workers is None else workers
    if workers < 0:
        raise InputError(f"--workers must be 0 (everything in this process) or more, got {workers}")
    recorder.append({"type": "started"})
    recorder.say("load")
    with recorder.watch.charge("load"):
        problem = prepare(run.task, store=store_path(run.path), model=model)
    recorder.objectives, recorder.workers = problem.objectives, workers
    for line in (
        *describe_left_alone(problem.context.model, problem.anatomy),
        *describe_products(problem.anatomy, problem.space),
        *describe_saturation(run.task, problem.space, [device.profile for device in problem.devices]),
    ):
        recorder.note(line)
    if run.task.model is not None and run.task.model.kv_cache_bits is not None:
        recorder.note(describe_kv_cache(problem.context.model, run.task.model.kv_cache_bits))
    mirrors = Mirrors(run, recorder.note)
    stopping = threading.Event()
    with _signals(stopping), gc_frozen(), one_blas_thread():
        try:
            with _pool(problem, recorder, workers, ray_address) as pool:
                with recorder.watch.charge("start mirrors"):
                    mirrors.open()  # while the workers come up
                freeze_gc()
                session = SearchSession(run=run, recorder=recorder, problem=problem, pool=pool, stopping=stopping)
                _search(session, mirrors)
            session.stop_if_asked()
            with recorder.watch.charge("verification"):
                verify(session)
            session.stop_if_asked()
        except Interrupted:
            _end(recorder, mirrors, "interrupted")
            raise
        recorder.say("report")
        _end(recorder, mirrors, "done")
    recorder.say("done")
    opened = Run(run.path, run.task, run.state)
    fronts = [opened.front(), *(opened.front(profile=name) for name in run.state.facts.get("profiles", [])[1:])]
    for front in fronts:
        if front.nearest is None:
            return front
    raise LimitsNotMet(f"no point meets the limits; {fronts[0].nearest}. The run is in {run.path}")


def _search(session: SearchSession, mirrors: Mirrors) -> None:
    build_store(session)
    export_original(session)
    evaluate_baselines(session)
    table = measure_table(session)

    def mirror() -> None:
        if mirrors.due:
            session.recorder.times()  # so that the mirrors, and whoever asks for the status, see where the time goes
            with session.recorder.watch.charge("mirrors"):
                mirrors.sync(final=False)

    explore(session, table, mirror, seeds=planned_seeds(session, table) if session.task.search.plans else {})
    session.recorder.times()


def _end(recorder: Recorder, mirrors: Mirrors, how: str) -> None:
    """The ledger first: the mirrors say how it ended, and may fail."""
    recorder.times()
    recorder.append({"type": "ended", "how": how})
    with recorder.watch.charge("mirrors"):
        mirrors.sync(final=True)
    recorder.times()


@contextmanager
def _pool(problem: Problem, recorder: Recorder, workers: int, ray_address: str | None) -> Iterator[Pool]:
    with recorder.watch.charge("start workers"):
        pool: Pool
        if workers == 0:
            pool = InProcess(problem.context)
        else:
            from .workers import RayPool

            threads = max(1, usable_cores() // workers)
            pool = RayPool(
                problem.context, workers=workers, threads=threads, address=ray_address, modules=problem.modules
            )
    try:
        yield pool
    finally:
        pool.close()


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
