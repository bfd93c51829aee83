"""`latency_ms` of every trial, predicted from models that were measured here: in place of what a profile says.

The table lies in the run's folder, so a resumed run goes on with the same figures. A trial is given the whole
prediction, with its interval. A searcher wants shares of groups and levels that add up; it is given the sum that comes
nearest to the predictions (least squares over drawn candidates), which leaves out what lies between neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import TaskError

if TYPE_CHECKING:
    from ...compressors import LayerSpec
    from ...evaluators.prediction import Form, LatencyTable
    from ..problem import Problem
    from ._session import SearchSession

TABLE = "latency.json"
_DRAWN_PER_LEVEL = 4
_LEAST_DRAWN = 400
_RIDGE = 1e-3


def take_latency_table(session: SearchSession) -> None:
    """Loads the table, or measures it where the task asks for that, and puts what follows into the sitting's costs.

    Does nothing under `latency = "modelled"`, nor under "auto" where no table is at hand. Raises `TaskError` where a
    latency is to be measured that cannot be, `InputError` for a table of another model, runtime or thread count.
    """
    table = _table(session)
    if table is None:
        return
    problem = session.problem
    hardware = session.task.hardware
    table.check(model=problem.model_digest, runtime=hardware.runtime, threads=hardware.threads)
    session.latency = table
    rows, fixed = additive(table, session)
    session.costs = {**session.costs, "latency_ms": rows}
    session.fixed = {**session.fixed, "latency_ms": fixed}
    session.original_costs = {**session.original_costs, "latency_ms": table.original_ms}


def _table(session: SearchSession) -> LatencyTable | None:
    from ...evaluators.prediction import LatencyTable

    task, own = session.task, session.run.path / TABLE
    if task.hardware.latency == "modelled":
        return None
    if own.is_file():
        return LatencyTable.load(own)
    if task.hardware.latency_table is not None:
        table = LatencyTable.load(Path(task.path(task.hardware.latency_table)))
        table.save(own)
        return table
    if task.hardware.latency == "auto":
        return None
    with session.recorder.watch.charge("latency"):
        table = measured(session)
    table.save(own)
    return table


def measured(session: SearchSession) -> LatencyTable:
    from ...evaluators.prediction import measure_table

    problem, task = session.problem, session.task

    def say(done: int, total: int) -> None:
        session.recorder.say("latency", done=done, total=total)
        session.stop_if_asked()

    if task.hardware.runtime not in ("onnxruntime", "openvino"):
        raise TaskError(
            f'hardware.latency = "measured" needs the runtime onnxruntime or openvino, got {task.hardware.runtime}; '
            'set latency = "modelled", or another runtime'
        )
    return measure_table(
        problem.context.model, problem.anatomy, problem.context.calibration, problem.calibration_inputs,
        [(group.layers, group.levels) for group in problem.space.groups], runtime=task.hardware.runtime,
        threads=task.hardware.threads, digest=problem.model_digest, seed=task.search.seed, say=say,
    )  # fmt: skip


def additive(table: LatencyTable, session: SearchSession) -> tuple[tuple[tuple[float, ...], ...], float]:
    """(milliseconds for each group and level, milliseconds whatever is chosen); none is negative but the last."""
    from ...evaluators.prediction import draw, offers_of

    problem = session.problem
    groups = problem.space.groups
    # levels that become the same thing have the same share: the fit is over what differs
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
    """Ridge regression on which level each group has; each group's shares then begin at zero."""
    starts = np.concatenate(([0], np.cumsum(counts)))
    design = np.zeros((len(rows), int(starts[-1])))
    for n, row in enumerate(rows):
        design[n, starts[:-1] + np.asarray(row)] = 1.0
    centre = float(values.mean())
    solved = np.linalg.solve(design.T @ design + _RIDGE * np.eye(design.shape[1]), design.T @ (values - centre))
    shares = [solved[a:b] for a, b in pairwise(starts)]
    return [share - share.min() for share in shares], centre + sum(float(share.min()) for share in shares)
