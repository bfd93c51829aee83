"""A run from its task to its front.

store -> baselines -> table -> search -> verify -> report. Each phase looks at the ledger first and does what is
missing, so
that a run that was killed anywhere goes on from there.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..errors import InputError, Interrupted, LimitsNotMet, TaskError
from ._run_view import Run
from .front import Front
from .mirrors import Mirrors
from .phases import (
    Sitting,
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
from .problem import Prepared, prepare, said, settle_runtime
from .run import (
    Listener,
    Recorder,
    StoredRun,
    create_run,
    new_run_path,
    read_run,
    settle,
    store_path,
    thawed_afterwards,
    write_atomic,
)
from .space import kv_cache_remark, left_alone, products_remark, saturation_remark
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
            Recorder(run, ledger, progress).note(said(choice))
        return _drive(run, Recorder(run, ledger, progress), model, workers, ray_address)


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
    run: StoredRun, recorder: Recorder, model: nn.Module | None, workers: int | None, ray_address: str | None
) -> Front:
    workers = usable_cores() if workers is None else workers
    if workers < 0:
        raise InputError(f"--workers must be 0 (everything in this process) or more, got {workers}")
    recorder.append({"type": "started"})
    recorder.say("load")
    with recorder.watch.charge("load"):
        prepared = prepare(run.task, store=store_path(run.path), model=model)
    recorder.objectives, recorder.workers = prepared.objectives, workers
    for line in (
        *left_alone(prepared.bench.model, prepared.anatomy),
        *products_remark(prepared.anatomy, prepared.space),
        *saturation_remark(run.task, prepared.space, [device.profile for device in prepared.devices]),
    ):
        recorder.note(line)
    if run.task.model is not None and run.task.model.kv_cache_bits is not None:
        recorder.note(kv_cache_remark(prepared.bench.model, run.task.model.kv_cache_bits))
    mirrors = Mirrors(run, recorder.note)
    stopping = threading.Event()
    with _signals(stopping), thawed_afterwards(), one_blas_thread():
        try:
            with _pool(prepared, recorder, workers, ray_address) as pool:
                with recorder.watch.charge("start mirrors"):
                    mirrors.open()  # while the workers come up
                settle()
                sitting = Sitting(run=run, recorder=recorder, prepared=prepared, pool=pool, stopping=stopping)
                _search(sitting, mirrors)
            sitting.stop_if_asked()
            with recorder.watch.charge("verification"):
                verify_points(sitting)
            sitting.stop_if_asked()
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


def _search(sitting: Sitting, mirrors: Mirrors) -> None:
    build_store(sitting)
    export_original(sitting)
    evaluate_baselines(sitting)
    table = measure_table(sitting)

    def mirror() -> None:
        if mirrors.due:
            sitting.recorder.times()  # so that the mirrors, and whoever asks for the status, see where the time goes
            with sitting.recorder.watch.charge("mirrors"):
                mirrors.sync(final=False)

    explore(sitting, table, mirror, seeds=planned_seeds(sitting, table) if sitting.task.search.plans else {})
    sitting.recorder.times()


def _end(recorder: Recorder, mirrors: Mirrors, how: str) -> None:
    """The ledger first: the mirrors say how it ended, and may fail."""
    recorder.times()
    recorder.append({"type": "ended", "how": how})
    with recorder.watch.charge("mirrors"):
        mirrors.sync(final=True)
    recorder.times()


@contextmanager
def _pool(prepared: Prepared, recorder: Recorder, workers: int, ray_address: str | None) -> Iterator[Pool]:
    with recorder.watch.charge("start workers"):
        pool: Pool
        if workers == 0:
            pool = InProcess(prepared.bench)
        else:
            from .workers import RayPool

            threads = max(1, usable_cores() // workers)
            pool = RayPool(
                prepared.bench, workers=workers, threads=threads, address=ray_address, modules=prepared.modules
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
