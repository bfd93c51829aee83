"""Where the rivals measure: the same worker, evaluator, store and ledger as the product, and the same meter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paredown.compressors import LayerSpec
from paredown.evaluators import Measurement, ReferenceOutputs
from paredown.search import Candidate, Completed
from paredown.search.evaluation import Worker
from paredown.search.problem import EvaluationContext
from paredown.search.values import reason, trial_to_record
from paredown.testing import SyntheticProblem

from .workbench import Workbench

Levels: TypeAlias = tuple[int, ...]
FloatArray: TypeAlias = NDArray[np.float64]
MAX_IDLE = 1000
"""So many questions in a row to which the answer was known, and a rival is taken to have nothing new."""
N_DRAWS = 8
"""So many orders of the search split stand in for "fresh data"; a stage sees the beginning of one of them."""


class BudgetSpent(Exception):
    """The sample passes are used up, or nothing new is asked for."""


class Lab(ABC):
    """What a rival may ask, and what it pays. Asking again for what is known costs nothing.

    costs    bytes, shape (groups, most levels); absent levels are infinite
    errors   relative squared error of the weight, same shape: known from the layers alone, so it costs nothing
    n_samples  of a full evaluation
    """

    costs: FloatArray
    errors: FloatArray
    fixed: float
    n_samples: int

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self.spent = 0.0
        self._idle = 0
        self._known: dict[tuple[Levels, int, int], float] = {}

    @property
    def n_groups(self) -> int:
        return len(self.costs)

    def bytes_of(self, levels: Levels) -> float:
        return self.fixed + float(self.costs[np.arange(self.n_groups), list(levels)].sum())

    def ladder(self, group: int) -> list[int]:
        """The group's levels worth having, dearest first: none of them is beaten in bytes and in weight error."""
        order = sorted(
            np.flatnonzero(np.isfinite(self.costs[group])), key=lambda i: (self.costs[group, i], self.errors[group, i])
        )
        kept: list[int] = []
        for level in order:  # from the cheapest
            if not kept or self.errors[group, level] < self.errors[group, kept[-1]]:
                kept.append(int(level))
        return kept[::-1]

    def full(self, levels: Levels) -> float:
        """Mean divergence on the whole search split: a point of the front. Infinite if the candidate fails."""
        return self._ask(levels, self.n_samples, 0)

    def told(self) -> dict[Levels, float]:
        """Mean divergence of what is known on the whole split; at first these are the uniform settings."""
        return {levels: value for (levels, n, draw), value in self._known.items() if (n, draw) == (self.n_samples, 0)}

    def part(self, levels: Levels, n: int, draw: int) -> float:
        """The same on `n` samples, of the draw of that number."""
        return self.full(levels) if n >= self.n_samples else self._ask(levels, n, 1 + draw % N_DRAWS)

    def pay(self, what: str, passes: float) -> None:
        """For work that is no evaluation, before it is done. Raises `BudgetSpent`."""
        self._check()
        self.spent += passes
        self._note({"type": what, "passes": passes})

    def _ask(self, levels: Levels, n: int, draw: int) -> float:
        levels = tuple(int(level) for level in levels)
        if (levels, n, draw) not in self._known:
            self._check()
            self.spent += n
            self._idle = 0
            self._known[levels, n, draw] = self._whole(levels) if draw == 0 else self._some(levels, n, draw)
        elif (idle := self._idle + 1) > MAX_IDLE:
            raise BudgetSpent
        else:
            self._idle = idle
        return self._known[levels, n, draw]

    def _check(self) -> None:
        if self.spent >= self.budget:
            raise BudgetSpent

    @abstractmethod
    def _whole(self, levels: Levels) -> float:
        """Evaluates, and records a trial."""

    @abstractmethod
    def _some(self, levels: Levels, n: int, draw: int) -> float:
        """Evaluates, and records what it cost."""

    @abstractmethod
    def _note(self, record: dict[str, Any]) -> None: ...


class RealLab(Lab):
    """On a real model. What an earlier sitting has measured is read from the ledger, and paid for all the same: so a
    rival that was cut off comes to the same place again, and goes on."""

    def __init__(self, workbench: Workbench, budget: float) -> None:
        super().__init__(budget)
        self.workbench = workbench
        costs = workbench.trials.costs
        self.costs = _padded(costs.rows["bytes"])
        self.errors = _padded(costs.weight_error)
        self.fixed = float(costs.fixed["bytes"])
        self.n_samples = workbench.full
        self._bench = workbench.problem.context
        self._workers = {0: Worker(self._bench)}
        self._recalled = _recalled(workbench.ledger.records)
        self._numbers = 1 + max((trial.number for trial in workbench.state.trials), default=-1)
        self._notes = [r for r in workbench.ledger.records if r["type"] == "gradients"]
        for trial in workbench.state.trials:  # the baselines are known to all, and were paid for
            if trial.kind == "uniform" and isinstance(trial, Completed):
                self._known[trial.candidate.levels, self.n_samples, 0] = trial.metrics["divergence"].value
        self.spent = workbench.full * sum(t.kind == "uniform" for t in workbench.state.trials)

    def variant(self, fqn: str, spec: LayerSpec) -> Tensor:
        """The weight of that layer as the store holds it."""
        return self._worker(0).candidate_model.layers.variant(fqn, spec).effective

    def _whole(self, levels: Levels) -> float:
        if (key := (levels, self.n_samples, 0)) in self._recalled:
            return self._recalled[key]
        candidate, number = Candidate(levels=levels), self._numbers
        self._numbers += 1
        try:
            metrics = self._worker(0).evaluate_low_fidelity(candidate, self.n_samples).metrics
        except Exception as exception:  # a candidate may fail in any way; a rival must go on as the product does
            self._note({"type": "partial", "levels": levels, "n": self.n_samples, "draw": 0, "value": None,
                        "reason": reason(exception), "passes": self.n_samples})  # fmt: skip
            return float("inf")
        metrics = {**metrics, **self.workbench.trials.costs.metrics_of(candidate)}
        trial = Completed(number=number, candidate=candidate, kind="mixed", metrics=metrics, samples=self.n_samples)
        self.workbench.recorder.append(trial_to_record(trial))
        return metrics["divergence"].value

    def _some(self, levels: Levels, n: int, draw: int) -> float:
        if (key := (levels, n, draw)) in self._recalled:
            return self._recalled[key]
        try:
            found = self._worker(draw).evaluate_low_fidelity(Candidate(levels=levels), n)
            value: float | None = found.metrics["divergence"].value
        except Exception:  # see above; the reason comes with the full evaluation, if it gets that far
            value = None
        record = {"type": "partial", "levels": list(levels), "n": n, "draw": draw, "value": value, "passes": n}
        self._note(record)
        return float("inf") if value is None else value

    def _note(self, record: dict[str, Any]) -> None:
        if record["type"] == "gradients" and self._notes:
            self._notes.pop()  # an earlier sitting has written it down
            return
        self.workbench.recorder.append(record)

    def _worker(self, draw: int) -> Worker:
        if draw not in self._workers:
            self._workers[draw] = Worker(_shuffled(self._bench, draw))
        return self._workers[draw]


class SyntheticLab(Lab):
    """On a `SyntheticProblem`. A part of the samples gives the divergence with the noise that so few samples have."""

    def __init__(self, problem: SyntheticProblem, budget: float, n_samples: int, records: list[dict[str, Any]]) -> None:
        super().__init__(budget)
        self.problem, self.records = problem, records
        self.costs = np.asarray(problem.bytes)
        self.errors = np.repeat(4.0 ** -problem.bits[None, :].astype(float), len(self.costs), axis=0)
        self.errors[:, 0] = 0.0
        self.fixed = problem.table.fixed["bytes"]
        self.n_samples = n_samples
        for candidate in problem.uniform():
            self.full(candidate.levels)
        for record in records:
            record["kind"] = "uniform"

    def _whole(self, levels: Levels) -> float:
        trial = self.problem.trial(len(self.records), Candidate(levels=levels))
        self._note({**trial_to_record(trial), "samples": self.n_samples})
        return trial.metrics["divergence"].value

    def _some(self, levels: Levels, n: int, draw: int) -> float:
        noise = np.random.default_rng([draw, n, *levels]).normal(0.0, (1.0 / n - 1.0 / self.n_samples) ** 0.5)
        self._note({"type": "partial", "levels": list(levels), "n": n, "draw": draw, "passes": n})
        return self.problem.divergence(Candidate(levels=levels)) * float(np.exp(noise))

    def _note(self, record: dict[str, Any]) -> None:
        self.records.append(record)


def _padded(rows: list[list[float]]) -> FloatArray:
    padded = np.full((len(rows), max(map(len, rows))), np.inf)
    for g, row in enumerate(rows):
        padded[g, : len(row)] = row
    return padded


def _recalled(records: list[dict[str, Any]]) -> dict[tuple[Levels, int, int], float]:
    """What an earlier sitting measured. A trial is known by its levels, at draw 0."""
    found: dict[tuple[Levels, int, int], float] = {}
    for record in records:
        if record["type"] == "partial":
            value = record["value"]
            key = (tuple(record["levels"]), int(record["n"]), int(record["draw"]))
            found[key] = float("inf") if value is None else float(value)
        elif record["type"] == "trial" and record["status"] == "completed" and record["kind"] == "mixed":
            measured = Measurement.from_dict(record["metrics"]["divergence"])
            found[tuple(record["levels"]), int(measured.n or 0), 0] = measured.value
    return found


def _shuffled(bench: EvaluationContext, draw: int) -> EvaluationContext:
    """The same bench with its samples in another order."""
    order = torch.from_numpy(np.random.default_rng(draw).permutation(len(bench.split)))
    split = bench.split.select(order)
    reference = ReferenceOutputs.compute(bench.model, split, bench.batch_size)
    return replace(bench, split=split, reference=reference)
