"""The store phase: every layer at every level, built once, and the cost model that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from ...compressors import LayerSpec
from ...errors import IntegrityError, ParedownError, TaskError
from ..devices import describe_profile_mismatch
from ..evaluation import BuildVariants, original_costs, static_costs
from ..problem import Problem
from ..run import Recorder
from ..space import check_reachable, describe_structure_left, without_correction
from ..task import environment
from ..values import is_structural, metrics_on_device, without_structure
from ._cost_model import CostModel, PrunedTotals
from ._job_runner import JobRunner
from ._latency_table import additive_latency, latency_table

_BUILD_TIMEOUT_S = 1800.0
_CHUNK = 8
"""Number of variants of one layer that a worker builds in one job."""

Sizes: TypeAlias = Mapping[tuple[str, LayerSpec], int]
"""(fqn, spec) -> bytes of the layer's weight in a stored file."""
Errors: TypeAlias = Mapping[tuple[str, LayerSpec], float]
"""(fqn, spec) -> relative squared error of the layer's weight."""


def build_store(problem: Problem, runner: JobRunner, recorder: Recorder, *, folder: Path) -> CostModel:
    """Build every layer at every level of its group, and return what each level costs.

    folder  folder of the run, in which a measured latency table is kept

    Raises `TaskError` for a layer that cannot be compressed and for limits that no candidate can meet, `Interrupted`
    if a stop was asked for.
    """
    sizes, errors = _build_variants(problem, runner, recorder)
    runner.clock.stop_if_asked()
    _note_remarks(problem, recorder)
    table = latency_table(problem, runner.clock, recorder, folder)
    rows, fixed = static_costs(problem, sizes)
    original = original_costs(problem, sizes)
    if table is not None:
        latencies, fixed_ms = additive_latency(table, problem)
        rows, fixed = {**rows, "latency_ms": latencies}, {**fixed, "latency_ms": fixed_ms}
        original = {**original, "latency_ms": table.original_ms}
    groups = problem.space.groups
    costs = CostModel(
        problem=problem,
        rows=rows,
        fixed=fixed,
        original=original,
        original_bytes=tuple(
            max(rows["bytes"][n]) if is_structural(g.name) else sum(sizes[f, LayerSpec()] for f in g.layers)
            for n, g in enumerate(groups)
        ),
        weight_error=tuple(tuple(max(errors.get((f, s), 0.0) for f in g.layers) for s in g.levels) for g in groups),
        latency=table,
        pruned=PrunedTotals(problem),
    )
    _check_limits(costs, recorder)
    return costs


def _build_variants(problem: Problem, runner: JobRunner, recorder: Recorder) -> tuple[Sizes, Errors]:
    wanted: dict[str, list[LayerSpec]] = {fqn: [LayerSpec()] for fqn in problem.anatomy.fqns}
    for group in without_structure(problem.space).groups:
        for fqn in group.layers:
            wanted[fqn] = list(dict.fromkeys([LayerSpec(), *group.levels]))
    jobs = [
        BuildVariants(fqn=fqn, specs=tuple(specs[i : i + _CHUNK]), timeout_s=_BUILD_TIMEOUT_S)
        for fqn, specs in wanted.items()
        for i in range(0, len(specs), _CHUNK)
    ]
    sizes: dict[tuple[str, LayerSpec], int] = {}
    errors: dict[tuple[str, LayerSpec], float] = {}
    with recorder.watch.charge("store"):
        for n, outcome in enumerate(runner.run(jobs), 1):
            fqn, specs = outcome.job.fqn, outcome.job.specs
            if outcome.error is not None:
                raise build_error(fqn, outcome.error)
            for spec, built in zip(specs, outcome.result, strict=True):
                sizes[fqn, spec], errors[fqn, spec] = built.n_bytes, built.weight_error
            recorder.say("store", done=n, total=len(jobs))
    return sizes, errors


def build_error(fqn: str, why: str) -> ParedownError:
    """Make the error for a variant that could not be built: it blames the store's files, the disk, or the layer."""
    kind, _, text = why.partition(": ")
    if kind == IntegrityError.__name__:
        return IntegrityError(text)
    if kind == OSError.__name__:
        return ParedownError(f"the variants of {fqn} could not be stored: {text}")
    return TaskError(f"layer {fqn} cannot be compressed: {why}; leave it alone with [space] leave = [{fqn!r}]")


def _note_remarks(problem: Problem, recorder: Recorder) -> None:
    """Note where profile and machine differ, what cannot be removed, and which layers are not corrected."""
    hardware = problem.task.hardware
    for device in problem.devices:
        for line in describe_profile_mismatch(
            device.profile, hardware.runtime, environment(), by_default=hardware.profile is None
        ):
            recorder.note(line)
    for line in describe_structure_left(problem.context.structured):
        recorder.note(line)
    if problem.context.repair.bias:
        for line in without_correction(problem.context.model, problem.anatomy, problem.context.repair_inputs):
            recorder.note(line)


def _check_limits(costs: CostModel, recorder: Recorder) -> None:
    """Raise `TaskError` for limits that nothing meets on any device; note those that nothing meets on some of them."""
    problem, least = costs.problem, costs.least
    refused: dict[str, TaskError] = {}
    for n, device in enumerate(problem.devices):
        name = device.profile.name
        low, most = (metrics_on_device(values, name if n else None) for values in (least, costs.original))
        try:
            check_reachable(problem.task, low, most, profile=name, predicted=n == 0 and costs.latency is not None)
        except TaskError as why:
            refused[name] = why
    if len(refused) == len(problem.devices):
        raise next(iter(refused.values()))
    for name, refusal in refused.items():
        recorder.note(f"no candidate can keep the limits on {name}: {refusal}")
