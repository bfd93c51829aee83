"""The what-if question of `resolve`: candidates within limits on one device, from the ledger of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..._command import command
from ...errors import InputError, LimitsNotMet
from ...evaluators import Measurement, Source
from ..allocation import Programme, Solution, knapsack, pad, solve
from ..front import OnDevice
from ..run import StoredRun, assemble, perturbations_of
from ..values import (
    Candidate,
    Completed,
    Limits,
    Objective,
    SearchSpace,
    SensitivityTable,
    of_first_device,
    static_measurements,
    violation,
)
from ._predictor import Predictor

BISECTIONS = 12
"""Most halvings of the range of the log divergence: to a thousandth and less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """A run, seen on one device.

    table           sensitivity table of the run, with the costs on this device
    predictor       predictor of divergence and quality
    original        name -> value of the original, with the costs on this device
    limits          limits of the run
    original_id     id of the original's trial
    done            completed trials, without the original
    profile         name of the device's hardware profile
    device          None if the device is the run's first, and its memory is not computed for each candidate
    latency_source  source of `latency_ms`
    """

    run: StoredRun
    space: SearchSpace
    table: SensitivityTable
    predictor: Predictor
    objectives: tuple[Objective, ...]
    quality: Objective
    original: Mapping[str, float]
    limits: Limits
    original_id: str
    done: tuple[Completed, ...]
    profile: str
    device: OnDevice | None
    notes: tuple[str, ...]
    time_limit_s: float
    latency_source: Source = "modelled"

    @classmethod
    def of(cls, run: StoredRun, profile: str | Path | None, time_limit_s: float) -> WhatIf:
        """Read a run for one device.

        profile  name or file of a hardware profile; None: the run's first device

        Raises `InputError` for a run without a sensitivity table or without its original.
        """
        facts, state = run.facts(), run.state
        if not state.rows:
            raise InputError(
                f"{run.path} has no sensitivity table (its searcher, {run.task.search.searcher}, uses none, or it was "
                "stopped before); resolve needs one, so search with the searcher evolution"
            )
        done = tuple(t for t in run.trials if isinstance(t, Completed))
        first = next((t for t in done if t.kind == "original"), None)
        if first is None:
            raise InputError(f"{run.path} has not evaluated its original yet; run `{command('resume', run.path)}`")
        original = {name: m.value for name, m in first.metrics.items()}
        costs, fixed = of_first_device(facts.costs), of_first_device(facts.fixed)
        device = None
        if profile is not None:
            device = OnDevice.of(run, profile)
            costs |= device.rows.costs
            fixed |= device.rows.fixed
            original |= device.rows.original
        elif facts.activations is not None:  # the costs are the run's own, but memory is no sum over groups
            device = OnDevice.of(run, facts.profile)
        table, n_estimated = _table(run, costs, fixed)
        quality = Objective(name=facts.quality, maximise=_is_maximised(run))
        notes = []
        if n_estimated:
            notes.append(f"{n_estimated} rows of the sensitivity table were never measured; estimates stand for them")
        return cls(
            run=run, space=facts.space, table=table, objectives=facts.objectives, quality=quality,
            predictor=Predictor(facts.space, table, run.trials, quality, run.task.search.seed),
            original=original, original_id=f"t{first.number}", limits=facts.limits,
            profile=facts.profile if device is None else device.name, device=device,
            done=tuple(t for t in done if t.kind != "original"), notes=tuple(notes),
            time_limit_s=time_limit_s,
            latency_source=first.metrics["latency_ms"].source if profile is None else "modelled",
        )  # fmt: skip

    @property
    def senses(self) -> dict[str, bool | None]:
        """The sense of each metric that may be limited: True to maximise, False to minimise, None for a cost."""
        costs: dict[str, bool | None] = dict.fromkeys(self.table.costs)
        return costs | {"divergence": False, self.quality.name: self.quality.maximise}

    def minimised(self, bounds: Limits) -> str:
        """Return the metric to minimise: the first objective that the limits leave free, else the last."""
        if not ({"divergence", self.quality.name} & set(bounds)):
            return "divergence"
        costs = [o.name for o in self.objectives if o.name in self.table.costs] or ["bytes"]
        return next((name for name in costs if name not in bounds), costs[-1])

    def programme(self, bounds: Limits, minimise: str) -> Programme:
        """Return the programme of all costs and the refitted scores, whose sum stands for the divergence."""
        metrics = {name: pad(rows) for name, rows in self.table.costs.items()} | {"divergence": self.predictor.scores()}
        static = {name: bound for name, bound in bounds.items() if name in self.table.costs}
        return Programme(metrics=metrics, minimise=minimise, limits=static, fixed=self.table.fixed)

    def solve(self, bounds: Limits, minimise: str) -> Solution:
        """Return the best solution within the limits.

        Limits on predicted metrics (quality, divergence) are met by bisection on the additive divergence. Raises
        `LimitsNotMet` with what is in reach.
        """
        predicted = self._predicted(bounds)
        programme = self.programme(bounds, "divergence")
        best = solve(programme, time_limit_s=self.time_limit_s)
        if self._misses(best, predicted):
            raise LimitsNotMet(self._out_of_reach(best, predicted, others=bool(programme.limits)))
        if minimise == "divergence":
            return best
        cheapest = solve(replace(programme, minimise=minimise), time_limit_s=self.time_limit_s)
        if not self._misses(cheapest, predicted):
            return cheapest
        low, high = best.totals["divergence"], cheapest.totals["divergence"]
        low = max(low, 1e-9 * high)
        for _ in range(BISECTIONS):
            if high <= low * 1.001:
                break
            middle = math.sqrt(low * high)
            spent = {**programme.limits, "divergence": (None, middle)}
            found = solve(replace(programme, minimise=minimise, limits=spent), time_limit_s=self.time_limit_s)
            if self._misses(found, predicted):
                high = middle
            else:
                low, best = middle, found
        return best

    def sweep(self, cost: str, n: int, bounds: Limits) -> list[tuple[Solution, Limits]]:
        """Return the solutions of least divergence at n budgets of a cost, each with its limits.

        Budgets go in even ratios from the least cost within the limits to the most that helps. Of budgets with the same
        solution the first is kept. Raises `InputError` for less than 2 points.
        """
        if n < 2:
            raise InputError(f"a sweep needs at least 2 points, got {n}")
        programme = self.programme(bounds, "divergence")
        low, high = (self.solve(bounds, minimise).totals[cost] for minimise in (cost, "divergence"))
        budgets = (np.geomspace(low, high, n) if low > 0 else np.linspace(low, high, n)).tolist()
        budgets[0], budgets[-1] = low, high  # without rounding errors
        solved = self._at_once(programme, cost, budgets)
        lower = bounds.get(cost, (None, None))[0]
        found: dict[tuple[int, ...], tuple[Solution, Limits]] = {}
        predicted = self._predicted(bounds)
        for i, budget in enumerate(budgets):
            own = {**bounds, cost: (lower, budget)}
            within = replace(programme, limits={**programme.limits, cost: own[cost]})
            solution = solved[i] if solved else solve(within, time_limit_s=self.time_limit_s)
            if not self._misses(solution, predicted):
                found.setdefault(solution.levels, (solution, own))
        return list(found.values())

    def _at_once(self, programme: Programme, cost: str, budgets: Sequence[float]) -> list[Solution] | None:
        """Return all solutions by one dynamic programme; None if another cost is limited, or it is not exact."""
        if set(programme.limits) - {cost} or programme.limits.get(cost, (None, None))[0] is not None:
            return None
        price, scores = programme.metrics[cost], programme.metrics["divergence"]
        unusable = ~np.logical_and.reduce([np.isfinite(values) for values in programme.metrics.values()])
        whole = knapsack(np.where(unusable, np.inf, scores), np.where(unusable, np.inf, price))
        if whole.slack > 0:
            return None
        fixed = programme.fixed.get(cost, 0.0)
        chosen = [whole.within(budget - fixed + 1e-9 * abs(budget)) for budget in budgets]
        rows = [tuple(whole.levels[-1 if i is None else i].tolist()) for i in chosen]
        return [
            Solution(
                levels=levels,
                totals={name: programme.total(name, levels) for name in programme.metrics},
                gap=0.0,
                seconds=0.0,
                status="optimal",
            )
            for levels in rows
        ]

    def _predicted(self, bounds: Limits) -> Limits:
        """Return the limits on predicted metrics: those that are no static costs."""
        return {name: bound for name, bound in bounds.items() if name not in self.table.costs}

    def _misses(self, solution: Solution, limits: Limits) -> bool:
        return violation(self.predictor.predict(solution.levels), limits) > 0.0

    def _out_of_reach(self, best: Solution, limits: Limits, *, others: bool) -> str:
        """Describe the predicted metrics of the best solution that miss their limits.

        others  True if costs are limited too
        """
        predicted = self.predictor.predict(best.levels)
        parts = []
        for name, (low, high) in limits.items():
            if violation(predicted, {name: (low, high)}) > 0.0:
                sign, bound = (">=", low) if low is not None else ("<=", high)
                parts.append(
                    f"{name} {sign} {bound:.6g} is out of reach: the prediction is {predicted[name].value:.6g}"
                )
        return "; ".join(parts) + (" at best within the other limits" if others else " at best")

    def costs_of(self, candidate: Candidate) -> dict[str, Measurement]:
        """Return the costs of a candidate on this device, as a trial has them."""
        totals = {name: self.table.cost_of(name, candidate) for name in self.table.costs}
        if self.device is not None:
            totals |= self.device.device.exact(self.device.anatomy, self.space.assignment(candidate))
        found = static_measurements(totals, self.run.task.hardware.grid_g_per_kwh)
        if self.latency_source == "predicted":
            found["latency_ms"] = replace(found["latency_ms"], source="predicted")
        return found


def _table(run: StoredRun, costs: Mapping[str, Any], fixed: Mapping[str, float]) -> tuple[SensitivityTable, int]:
    """Return the sensitivity table of the ledger, and the number of its rows that are estimates.

    Estimates are those of the search, else the errors of the weights, scaled to the measured rows.
    """
    state, space = run.state, run.space
    guess = state.estimate["values"] if state.estimate and state.estimate["values"] else run.facts().weight_error
    wanted = [(g, i) for g, group in enumerate(space.groups) for i, s in enumerate(group.levels) if not s.is_neutral]
    table = assemble(
        wanted, state.row_facts, space.n_levels, guess, fixed=fixed,
        costs={name: tuple(tuple(row) for row in rows) for name, rows in costs.items()},
        n_samples=run.task.search.table_samples,
    )  # fmt: skip
    table = replace(table, perturbations=perturbations_of(state, space))
    return table, sum(key not in state.row_facts for key in wanted)


def _is_maximised(run: StoredRun) -> bool:
    """Say whether the task's metric is maximised, by the objectives if it is among them, else by itself."""
    name = run.facts().quality
    for objective in run.facts().objectives:
        if objective.name == name:
            return objective.maximise
    from ...evaluators import METRICS

    return METRICS[name].maximise if name in METRICS else True
