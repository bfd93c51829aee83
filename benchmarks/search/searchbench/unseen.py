"""The points of a run's fronts, evaluated again on samples that no decision of the search saw; the run pays nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from paredown.errors import ParedownError
from paredown.evaluators import ReferenceOutputs
from paredown.search import Candidate
from paredown.search.evaluation import Worker
from paredown.search.problem import Problem, original_quality

from .traces import Trace, Unseen


def judged(problem: Problem, trace: Trace, n: int, checkpoints: Sequence[float]) -> Trace:
    """The trace with the figures on `n` samples of the report split.

    Judged are the points on the fronts that were known at the cost of so many evaluations, and on that of the uniform
    settings. A point that fails on the new samples has no figure, and adds nothing to a hypervolume.
    """
    context = problem.context
    split = problem.report.take(n)
    reference = ReferenceOutputs.compute(context.model, split, context.batch_size)
    worker = Worker(replace(context, split=split, reference=reference))
    chosen = {place for cost in (uniform_cost(trace), *checkpoints) for place in trace.on_front(cost)}
    name = context.metric.name
    divergence: list[float | None] = [None] * len(trace.points)
    metric: list[float | None] = [None] * len(trace.points)
    for place in sorted(chosen):
        try:
            found = worker.evaluate_low_fidelity(Candidate(levels=trace.levels[place]), len(split)).metrics
        except ParedownError:  # a figure that is not finite: that is what the point is worth there
            continue
        divergence[place], metric[place] = found["divergence"].value, found[name].value
    unseen = Unseen(
        n=len(split), name=name, maximise=context.metric.maximise, original=_of_original(worker, name),
        original_search=problem.quality[name].value, divergence=tuple(divergence), metric=tuple(metric),
    )  # fmt: skip
    return replace(trace, unseen=unseen)


def uniform_cost(trace: Trace) -> float:
    """Full evaluations that the uniform settings cost: what was found by then is theirs."""
    return trace.booked["baselines"] / trace.samples


def _of_original(worker: Worker, name: str) -> float:
    return original_quality(worker.context, len(worker.context.split))[name].value
