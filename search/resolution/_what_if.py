"""What a run's ledger says of candidates within limits, for one device, without an evaluation: see `resolve`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

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
"""Halvings of the (logarithm of the) divergence that may be spent: to a thousandth and less of its range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """See the module.

    table     the rows measured, with the costs on this device
    original  name -> the original's value, the latency on this device
    limits    the run's own
    done      the completed trials, without the original
    profile   the device's name
    device    where it is another than the run's first, or the memory has to be worked out for each candidate
    latency_source  how `latency_ms` is known
    """

    run: StoredRun
    space: SearchSpace
    table: SensitivityTable
    foresight: Predictor
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
        facts, state = run.facts(), run.state
        if not state.rows:
            raise InputError(
                f"{run.path} has no sensitivity table (its searcher, {run.task.search.searcher}, uses none, or it was "
                "stopped before); resolve needs one, so search with the searcher evolution"
            )
        done = tuple(t for t in run.trials if isinstance(t, Completed))
        first = next((t for t in done if t.kind == "original"), None)
        if first is None:
            raise InputError(f"{run.path} has not evaluated its original yet; run `paredown resume {run.path}`")
        original = {name: m.value for name, m in first.metrics.items()}
        costs, fixed = of_first_device(facts.costs), of_first_device(facts.fixed)
        device = None
        if profile is not None:
            device = OnDevice.of(run, profile)
            costs |= device.rows.costs
            fixed |= device.rows.fixed
            original |= device.rows.original
        elif facts.activations is not None:  # the costs are the run's own, but the memory is no sum of them
            device = OnDevice.of(run, facts.profile)
        table, n_estimated = _table(run, costs, fixed)
        quality = Objective(name=facts.quality, maximise=_is_maximised(run))
        notes = []
        if n_estimated:
            notes.append(f"{n_estimated} rows of the sensitivity table were never measured; estimates stand for them")
        return cls(
            run=run, space=facts.space, table=table, objectives=facts.objectives, quality=quality,
            foresight=Predictor(facts.space, table, run.trials, quality, run.task.search.seed),
            original=original, original_id=f"t{first.number}", limits=facts.limits,
            profile=facts.profile if device is None else device.name, device=device,
            done=tuple(t for t in done if t.kind != "original"), notes=tuple(notes),
            time_limit_s=time_limit_s,
            latency_source=first.metrics["latency_ms"].source if profile is None else "modelled",
        )  # fmt: skip

    @property
    def senses(self) -> dict[str, bool | None]:
        """Name -> whether it is to be high, to be low, or a cost (None), of all that a limit can be on."""
        costs: dict[str, bool | None] = dict.fromkeys(self.table.costs)
        return costs | {"divergence": False, self.quality.name: self.quality.maximise}

    def minimised(self, bounds: Limits) -> str:
        """As `Front.pick` has it: the first objective that the limits leave free, else the last."""
        if not ({"divergence", self.quality.name} & set(bounds)):
            return "divergence"
        costs = [o.name for o in self.objectives if o.name in self.table.costs] or ["bytes"]
        return next((name for name in costs if name not in bounds), costs[-1])

    def programme(self, bounds: Limits, minimise: str) -> Programme:
        """Of all costs and the refitted scores, whose sum stands for the divergence."""
        metrics = {name: pad(rows) for name, rows in self.table.costs.items()} | {"divergence": self.foresight.scores()}
        static = {name: bound for name, bound in bounds.items() if name in self.table.costs}
        return Programme(metrics=metrics, minimise=minimise, limits=static, fixed=self.table.fixed)

    def solve(self, bounds: Limits, minimise: str) -> Solution:
        """Limits on what is only foreseen (quality, divergence) are met by halving the divergence that is spent."""
        foreseen = self._foreseen(bounds)
        programme = self.programme(bounds, "divergence")
        best = solve(programme, time_limit_s=self.time_limit_s)
        if self._misses(best, foreseen):
            raise LimitsNotMet(self._out_of_reach(best, foreseen, others=bool(programme.limits)))
        if minimise == "divergence":
            return best
        cheapest = solve(replace(programme, minimise=minimise), time_limit_s=self.time_limit_s)
        if not self._misses(cheapest, foreseen):
            return cheapest
        low, high = best.totals["divergence"], cheapest.totals["divergence"]
        low = max(low, 1e-9 * high)
        for _ in range(BISECTIONS):
            if high <= low * 1.001:
                break
            middle = math.sqrt(low * high)
            spent = {**programme.limits, "divergence": (None, middle)}
            found = solve(replace(programme, minimise=minimise, limits=spent), time_limit_s=self.time_limit_s)
            if self._misses(found, foreseen):
                high = middle
            else:
                low, best = middle, found
        return best

    def sweep(self, cost: str, n: int, bounds: Limits) -> list[tuple[Solution, Limits]]:
        """The least divergence at n budgets, from the least that this cost can be within the limits to the most that
        helps, in even ratios; with each its limits. Of budgets with the same solution the first."""
        if n < 2:
            raise InputError(f"a sweep takes 2 points at least, got {n}")
        programme = self.programme(bounds, "divergence")
        low, high = (self.solve(bounds, minimise).totals[cost] for minimise in (cost, "divergence"))
        budgets = (np.geomspace(low, high, n) if low > 0 else np.linspace(low, high, n)).tolist()
        budgets[0], budgets[-1] = low, high  # as they are, and not as rounding left them
        solved = self._at_once(programme, cost, budgets)
        lower = bounds.get(cost, (None, None))[0]
        found: dict[tuple[int, ...], tuple[Solution, Limits]] = {}
        foreseen = self._foreseen(bounds)
        for i, budget in enumerate(budgets):
            own = {**bounds, cost: (lower, budget)}
            within = replace(programme, limits={**programme.limits, cost: own[cost]})
            solution = solved[i] if solved else solve(within, time_limit_s=self.time_limit_s)
            if not self._misses(solution, foreseen):
                found.setdefault(solution.levels, (solution, own))
        return list(found.values())

    def _at_once(self, programme: Programme, cost: str, budgets: Sequence[float]) -> list[Solution] | None:
        """All budgets by one dynamic programme, where no other cost is limited and it is exact."""
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

    def _foreseen(self, bounds: Limits) -> Limits:
        """The limits on what is no static cost."""
        return {name: bound for name, bound in bounds.items() if name not in self.table.costs}

    def _misses(self, solution: Solution, foreseen: Limits) -> bool:
        return violation(self.foresight.predict(solution.levels), foreseen) > 0.0

    def _out_of_reach(self, best: Solution, foreseen: Limits, *, others: bool) -> str:
        predicted = self.foresight.predict(best.levels)
        parts = []
        for name, (low, high) in foreseen.items():
            if violation(predicted, {name: (low, high)}) > 0.0:
                sign, bound = (">=", low) if low is not None else ("<=", high)
                parts.append(f"{name} {sign} {bound:.6g} is out of reach: foreseen is {predicted[name].value:.6g}")
        return "; ".join(parts) + (" at best within the other limits" if others else " at best")

    def costs_of(self, candidate: Candidate) -> dict[str, Measurement]:
        """As a trial of this candidate would have them, on the outlook's device."""
        totals = {name: self.table.cost_of(name, candidate) for name in self.table.costs}
        if self.device is not None:
            totals |= self.device.device.exact(self.device.anatomy, self.space.assignment(candidate))
        found = static_measurements(totals, self.run.task.hardware.grid_g_per_kwh)
        if self.latency_source == "predicted":
            found["latency_ms"] = replace(found["latency_ms"], source="predicted")
        return found


def _table(run: StoredRun, costs: Mapping[str, Any], fixed: Mapping[str, float]) -> tuple[SensitivityTable, int]:
    """The rows as the ledger has them, and how many are guesses: the search's own, else the errors of the weights,
    either scaled to the rows that were measured."""
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
    """Of the task's metric: the objectives say, where it is one of them; else its limits or the metric itself."""
    name = run.facts().quality
    for objective in run.facts().objectives:
        if objective.name == name:
            return objective.maximise
    from ...evaluators import METRICS

    return METRICS[name].maximise if name in METRICS else True
