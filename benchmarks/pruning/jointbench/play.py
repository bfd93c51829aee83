"""A search that may be cut off and gone on with, and what its trials are worth on the report split."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paredown.evaluators import ReferenceOutputs, Split, evaluate_split, paired_test
from paredown.search import Completed, Task
from paredown.search.evaluation import CandidateModel
from paredown.search.values import hypervolume

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "search"))
from searchbench import workbench

FLOOR, CEILING = 1e-3, 2.0
"""Divergences (nats) between which a front's volume is measured, on a logarithmic scale."""


def searched(
    task: Task, folder: Path, store: Path, *, evaluations: float, spent: Callable[[], bool]
) -> Searched | None:
    """The finished search; None where the time was up. The same call again goes on with it."""
    with workbench.opened(task, folder, store) as bench:

        def is_done() -> bool:
            return bench.meter.read() >= evaluations * bench.full

        def stop_when_spent() -> None:
            if is_done() or spent():
                bench.runner.clock.stopping.set()

        table = bench.measure_table(evaluations)
        stop_when_spent()
        bench.explore(table, stop_when_spent)
        if not is_done() and spent():
            return None
        return Searched(bench)


class Searched:
    """The completed trials of a search (their figures of the search split), and their worth on the report split."""

    def __init__(self, bench: workbench.Workbench) -> None:
        problem = bench.problem
        self.bench = problem.context
        self.candidate_model = CandidateModel(problem.context)
        self.report: Split = problem.report
        self.reference = ReferenceOutputs.compute(self.bench.model, self.report, self.bench.batch_size)
        self.original_bytes = next(
            t.metrics["bytes"].value for t in bench.state.trials if isinstance(t, Completed) and t.kind == "original"
        )
        self.trials = [t for t in bench.state.trials if isinstance(t, Completed) and t.kind != "original"]

    def of_report(self, trial: Completed) -> tuple[Tensor, float]:
        """(samples,) scores of the metric, and the mean divergence from the original (nats)."""
        with torch.no_grad(), self.candidate_model.applied(trial.candidate):
            found = evaluate_split(
                self.bench.model, self.report, self.bench.metric, reference=self.reference,
                divergence=self.bench.divergence, batch_size=self.bench.batch_size,
            )  # fmt: skip
        assert found.divergence is not None
        return found.metric, float(found.divergence.mean())

    @property
    def original(self) -> Tensor:
        scores: Tensor = evaluate_split(
            self.bench.model, self.report, self.bench.metric, batch_size=self.bench.batch_size
        ).metric
        return scores


def front_of(trials: list[Completed], cost: str) -> list[Completed]:
    """Non-dominated in (divergence, cost), of the search split, from the cheapest on."""
    best, found = float("inf"), []
    for trial in sorted(trials, key=lambda t: (t.metrics[cost].value, t.metrics["divergence"].value)):
        if trial.metrics["divergence"].value < best:
            best = trial.metrics["divergence"].value
            found.append(trial)
    return found


def front_on_report(found: Searched, cost: str) -> list[dict[str, float]]:
    """The search split chose the points; these are their figures on the report split."""
    points = []
    for trial in front_of(found.trials, cost):
        scores, divergence = found.of_report(trial)
        points.append({cost: trial.metrics[cost].value, "divergence": divergence, "accuracy": float(scores.mean())})
    return points


def volume(points: list[dict[str, float]], cost: str, dearest: float) -> float:
    """Of (log divergence, cost as a share of the original's), each scaled to 1; the whole box is 1."""
    rows = torch.tensor([[p["divergence"], p[cost] / dearest] for p in points], dtype=torch.float64)
    if not len(rows):
        return 0.0
    low, high = torch.tensor(FLOOR).log(), torch.tensor(CEILING).log()
    rows[:, 0] = (rows[:, 0].clamp(min=FLOOR).log() - low) / (high - low)
    return float(hypervolume(rows.numpy(), torch.ones(2, dtype=torch.float64).numpy()))


def allocations(found: Searched, cost: str, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Each uniform or threshold setting beside the point of the search that costs no more: the best by the divergence
    of the search split. `gain` is how much less it loses on the report split, with its paired 95 % interval."""
    from paredown.search.report import uniform_label
    from paredown.search.space import config_of, uniform_settings

    space = found.bench.space
    labels = {candidate: label for label, candidate in uniform_settings(space)}
    original, rows = float(found.original.mean()), []
    for baseline in (t for t in found.trials if t.kind == "uniform"):
        rivals = [
            t
            for t in found.trials
            if t.kind == "mixed" and t.metrics[cost].value <= baseline.metrics[cost].value * (1 + 1e-9)
        ]
        if not rivals:
            continue
        best = min(rivals, key=lambda t: t.metrics["divergence"].value)
        (theirs, their_divergence), (ours, our_divergence) = found.of_report(baseline), found.of_report(best)
        paired = paired_test(ours, theirs, found.bench.metric)
        label = labels.get(baseline.candidate) or uniform_label(config_of(space.assignment(baseline.candidate)))
        rows.append(
            {
                "baseline": label, cost: baseline.metrics[cost].value, "accuracy": float(theirs.mean()),
                "loss": original - float(theirs.mean()), "divergence": their_divergence,
                "searched": {
                    cost: best.metrics[cost].value, "accuracy": float(ours.mean()),
                    "loss": original - float(ours.mean()), "divergence": our_divergence,
                },
                "gain": paired.difference, "low": paired.low, "high": paired.high,
            }
        )  # fmt: skip
        say(f"  {label:16} {theirs.mean():.4f} -> {ours.mean():.4f} [{paired.low:+.4f}, {paired.high:+.4f}]")
    return rows
