"""Latencies of all trials, predicted from models that were measured on this machine instead of from a profile.

The table lies in the run's folder, so a resumed run goes on with the same figures. A trial gets the whole prediction,
with its interval. A searcher needs costs of groups and levels that add up. It gets the sum that comes nearest to the
predictions (least squares over drawn candidates), which leaves out interactions between neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ...errors import TaskError
from ..task import runtime_options

if TYPE_CHECKING:
    from ...compressors import LayerSpec
    from ...evaluators.prediction import Form, LatencyTable
    from ...evaluators.runtimes import RuntimeOptions
    from ..problem import Problem
    from ..run import Recorder
    from ._clock import Clock

Measure: TypeAlias = "Callable[[Problem, Clock, Recorder], LatencyTable]"

TABLE = "latency.json"
_DRAWN_PER_LEVEL = 4
_LEAST_DRAWN = 400
_RIDGE = 1e-3


def measure_latencies(problem: Problem, clock: Clock, recorder: Recorder) -> LatencyTable:
    """Measure whole models of the space on this machine.

    Raises `TaskError` for a runtime whose latencies cannot be predicted, `Interrupted` if a stop was asked for.
    """
    from ...evaluators.prediction import measure_table

    task = problem.task

    def say(done: int, total: int) -> None:
        recorder.say("latency", done=done, total=total)
        clock.stop_if_asked()

    if task.hardware.runtime not in ("onnxruntime", "openvino"):
        raise TaskError(
            f'hardware.latency = "measured" needs the runtime onnxruntime or openvino, got {task.hardware.runtime}; '
            'set latency = "modelled", or another runtime'
        )
    with recorder.watch.charge("latency"):
        return measure_table(
            problem.context.model, problem.anatomy, problem.context.calibration, problem.calibration_inputs,
            [(group.layers, group.levels) for group in problem.space.groups], runtime=task.hardware.runtime,
            threads=task.hardware.threads, digest=problem.model_digest, seed=task.search.seed, say=say,
            options=_session_options(problem),
        )  # fmt: skip


def latency_table(
    problem: Problem, clock: Clock, recorder: Recorder, folder: Path, *, measure: Measure = measure_latencies
) -> LatencyTable | None:
    """Load the table of this run, or measure it where the task asks for that.

    Returns None under `latency = "modelled"`, and under "auto" where no table is at hand. Raises `TaskError` for
    latencies that cannot be measured, `InputError` for a table of another model, runtime or number of threads, or of
    other options of the runtime.

    folder   folder of the run, in which a copy of the table is kept
    measure  measures the table
    """
    from ...evaluators.prediction import LatencyTable

    hardware, own = problem.task.hardware, folder / TABLE
    options: dict[str, Any] | None = _options(problem)
    if hardware.latency == "modelled":
        return None
    if own.is_file():
        table = LatencyTable.load(own)
        if not table.names_options:  # a run of an earlier version goes on with the table that it has
            options = None
    elif hardware.latency_table is not None:
        table = LatencyTable.load(Path(problem.task.path(hardware.latency_table)))
        table.save(own)
    elif hardware.latency == "auto":
        return None
    else:
        table = measure(problem, clock, recorder)
        table.save(own)
    table.check(model=problem.model_digest, runtime=hardware.runtime, threads=hardware.threads, options=options)
    return table


def _options(problem: Problem) -> dict[str, Any]:
    from ...evaluators.runtimes import options_dict

    return options_dict(_session_options(problem))


def _session_options(problem: Problem) -> RuntimeOptions | None:
    return runtime_options(problem.task, [one.profile for one in problem.devices], problem.task.hardware.runtime)


def additive_latency(table: LatencyTable, problem: Problem) -> tuple[tuple[tuple[float, ...], ...], float]:
    """Return the sum that comes nearest to the table's predictions.

    Rows of milliseconds for each group and level, none negative; and the milliseconds that every candidate pays, which
    may be.
    """
    from ...evaluators.prediction import draw, offers_of

    groups = problem.space.groups
    # levels that are lowered to the same form have the same share: the fit is over the forms
    offers = offers_of(problem.anatomy, [(g.layers, g.levels) for g in groups])
    counts = [len(offer) for offer in offers]
    drawn = draw(counts, max(_LEAST_DRAWN, _DRAWN_PER_LEVEL * sum(counts)), np.random.default_rng(0))
    ratios, _ = table.ratios(
        [{f: form for offer, n in zip(offers, row, strict=True) for f, form in offer[n].items()} for row in drawn]
    )
    shares, rest = _sum_nearest_to(ratios, drawn, counts)
    rows = []
    for group, offer, share in zip(groups, offers, shares, strict=True):
        kinds = [_kind_of(problem, group.layers, spec, offer) for spec in group.levels]
        rows.append(tuple(float(share[kind]) * table.original_ms for kind in kinds))
    return tuple(rows), rest * table.original_ms


def _kind_of(problem: Problem, layers: Sequence[str], spec: LayerSpec, offer: Sequence[Mapping[str, Form]]) -> int:
    from ...evaluators.prediction import form_of

    return int(offer.index({fqn: form_of(problem.anatomy[fqn], spec) for fqn in layers}))


def _sum_nearest_to(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], rows: Sequence[Sequence[int]], counts: Sequence[int]
) -> tuple[list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]], float]:
    """Fit the shares of each group's levels by ridge regression. Each group's shares then begin at zero."""
    starts = np.concatenate(([0], np.cumsum(counts)))
    design = np.zeros((len(rows), int(starts[-1])))
    for n, row in enumerate(rows):
        design[n, starts[:-1] + np.asarray(row)] = 1.0
    centre = float(values.mean())
    solved = np.linalg.solve(design.T @ design + _RIDGE * np.eye(design.shape[1]), design.T @ (values - centre))
    shares = [solved[a:b] for a, b in pairwise(starts)]
    return [share - share.min() for share in shares], centre + sum(float(share.min()) for share in shares)
