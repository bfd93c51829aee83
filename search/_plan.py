"""Plans: from a task to a config in one call, without a search."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..evaluators import Measurement
from .plans import (
    BY_LEVELS,
    MEAN_BITS,
    SLACK,
    STRATEGIES,
    THRESHOLD,
    StrategyContext,
    budget_of,
    fp16_mse_assignment,
    mean_bits,
    stored_bits,
    strategy_context_of,
    total,
)
from .space import ParameterPlace, config_of, describe_left_alone, with_claims
from .task import settle_profile
from .values import Candidate, Limits

if TYPE_CHECKING:
    from torch import nn

    from ..compressors import Anatomy, LayerSpec
    from .phases import CostModel
    from .problem import Problem
    from .run import Listener
    from .task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A config made by a rule, and its costs. Nothing of it was evaluated.

    config   config for `paredown apply`, with the metrics as its claims
    metrics  counted or modelled costs, and the summed divergence where a table was measured ("predicted")
    limits   name -> (least, most) that were kept; empty for "fp16-mse"
    errors   layer -> relative error of its INT8 weights; for "fp16-mse" alone
    places   what becomes of each parameter with more than 1 % of all
    original  `bytes` of the original, in the types of its source, and `fp32_bytes` where these are not FP32; empty for
             "fp16-mse"
    notes    lines on layers that are left alone, and on levels that some layers cannot have
    """

    strategy: str
    config: Mapping[str, Any]
    metrics: Mapping[str, Measurement]
    limits: Limits = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    places: tuple[ParameterPlace, ...] = ()
    notes: tuple[str, ...] = ()
    original: Mapping[str, Measurement] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `paredown plan --json`; docs/json.md lists its keys."""
        keys = ("value", "unit", "source")
        return {
            "strategy": self.strategy,
            "metrics": {name: {key: getattr(m, key) for key in keys} for name, m in self.metrics.items()},
            "limits": {name: {"min": low, "max": high} for name, (low, high) in self.limits.items()},
            "errors": dict(self.errors),
            "config": dict(self.config),
            "parameters": [place.to_dict() for place in self.places],
            "notes": list(self.notes),
            "original": {name: {key: getattr(m, key) for key in keys} for name, m in self.original.items()},
        }


def plan(
    task: Task | Mapping[str, Any] | Path | str,
    *,
    strategy: str = "sensitivity",
    bits: float | None = None,
    limits: str | Sequence[str] | None = None,
    threshold: float | None = None,
    slack: float = SLACK,
    model: nn.Module | None = None,
    progress: Listener | None = None,
) -> Plan:
    """Make a config by a rule or by the sensitivity table, without a search.

    It works in this process, and takes seconds to a minute.

    strategy   one of `STRATEGIES`; each has a file of its own in `plans/`
    bits       stored bits a weight, on average ("uniform": the width). Without bits and limits: the task's own limits
               on costs, else 4
    limits     "bytes<=100000", "bytes<=25%" of the original's, "latency_ms<=0.5", "mean_bits<=4", or several
    threshold  "fp16-mse" alone: the relative error above which a layer stays in FP16
    slack      "performance" and "energy" alone: share by which their divergence may exceed the least

    Raises `InputError` for arguments that do not go together, `LimitsNotMet` where nothing keeps the limits.
    """
    from .task import as_task

    if strategy not in STRATEGIES:
        raise InputError(f"a plan's strategy is one of {', '.join(STRATEGIES)}, got {strategy!r}")
    if bits is not None and limits:
        raise InputError('give bits or limits, not both: bits = 4 is the limit "mean_bits<=4"')
    if slack < 0:
        raise InputError(f"slack is a share of the least divergence, from 0 up, got {slack:g}")
    task = settle_profile(as_task(task))
    if strategy == "fp16-mse":
        if bits is not None or limits:
            raise InputError("fp16-mse has a threshold and no budget; leave bits and limits out")
        return _by_mse(task, THRESHOLD if threshold is None else threshold, model)
    if threshold is not None:
        raise InputError(f"a threshold is for fp16-mse alone, and this is {strategy}")
    with tempfile.TemporaryDirectory(prefix="paredown-") as folder:
        return _by_levels(task, strategy, bits, limits, slack, model, progress, Path(folder))


def _by_levels(
    task: Task,
    strategy: str,
    bits: float | None,
    limits: str | Sequence[str] | None,
    slack: float,
    model: nn.Module | None,
    progress: Listener | None,
    folder: Path,
) -> Plan:
    """Plan with the levels of the task's space. The store lies in `folder`; rows and remarks are kept in memory."""
    from .phases import Clock, JobRunner, TableInputs, build_store, measure_table, settle_repairs
    from .problem import prepare
    from .run import MemoryRecorder, State
    from .workers import open_pool

    task = _with_a_table(task)
    problem = settle_repairs(prepare(task, store=folder / "store", model=model))
    recorder = MemoryRecorder(State(), task.budget, progress)
    clock = Clock(budget=task.budget, state=recorder.state, watch=recorder.watch, stopping=threading.Event())
    with open_pool(problem, workers=0) as pool:
        runner = JobRunner(pool=pool, clock=clock)
        costs = build_store(problem, runner, recorder, folder=folder)
        bounds, bits = budget_of(costs, bits, limits)
        on_costs = {name: bound for name, bound in bounds.items() if name in costs.rows}
        inputs = TableInputs(costs=costs, limits=on_costs, runner=runner, recorder=recorder)
        context = strategy_context_of(costs, bounds, bits, lambda: measure_table(inputs))
        levels = BY_LEVELS[strategy](context, slack)
        return _planned(costs, context, strategy, levels)


def _with_a_table(task: Task) -> Task:
    """Return the same task with a searcher that uses a sensitivity table."""
    data = task.to_dict()
    data["search"] = {**data.get("search", {}), "searcher": "evolution", "params": {}}
    return type(task).from_dict(data, base_dir=task.base_dir)


def _planned(costs: CostModel, context: StrategyContext, strategy: str, levels: tuple[int, ...]) -> Plan:
    candidate = Candidate(levels=levels)
    metrics = dict(costs.metrics_of(candidate))
    bits = total(mean_bits(context.space, context.anatomy), levels)
    metrics[MEAN_BITS] = Measurement(value=bits, unit="bit", source="measured")
    if context.has_table:
        metrics["divergence"] = Measurement(value=context.table.divergence_of(candidate), source="predicted")
    if strategy == "energy":
        rows, fixed = context.more["energy_mj"]()
        metrics["energy_mj"] = Measurement(value=total(rows, levels) + fixed, unit="mJ", source="modelled")
    config = with_claims(config_of(context.space.assignment(candidate)), metrics)
    problem = costs.problem
    return Plan(
        strategy=strategy, config=config, metrics=metrics, limits=context.limits, places=problem.places,
        notes=_notes(problem), original=costs.original_sizes(),
    )  # fmt: skip


def _notes(problem: Problem) -> tuple[str, ...]:
    return (*problem.notes, *describe_left_alone(problem.context.model, problem.anatomy))


def _by_mse(task: Task, threshold: float, model: nn.Module | None) -> Plan:
    from .problem import prepare

    if threshold < 0:
        raise InputError(f"threshold is a relative squared error, from 0 up, got {threshold:g}")
    with tempfile.TemporaryDirectory(prefix="paredown-") as folder:
        problem = prepare(task, store=Path(folder) / "store", model=model)
        assignment, errors = fp16_mse_assignment(problem, task, threshold)
        metrics = _costs_of(problem, assignment)
    return Plan(
        strategy="fp16-mse", config=with_claims(config_of(assignment), metrics), metrics=metrics, errors=errors,
        places=problem.places, notes=_notes(problem),
    )  # fmt: skip


def _costs_of(problem: Problem, assignment: Mapping[str, LayerSpec]) -> dict[str, Measurement]:
    from .values import static_measurements

    totals = problem.devices[0].whole(problem.anatomy, assignment)
    found = static_measurements(totals, problem.task.hardware.grid_g_per_kwh)
    found[MEAN_BITS] = Measurement(value=_mean_of(problem.anatomy, assignment), unit="bit", source="measured")
    return found


def _mean_of(anatomy: Anatomy, assignment: Mapping[str, LayerSpec]) -> float:
    weights = {fqn: anatomy[fqn].n_weights for fqn in assignment}
    stored = sum(stored_bits(spec, anatomy[fqn]) * weights[fqn] for fqn, spec in assignment.items())
    return stored / max(1, sum(weights.values()))
