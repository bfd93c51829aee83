"""The trial factory: jobs for candidates, and trials of their outcomes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ...errors import SpecError
from ...evaluators import Measurement, SequentialTest
from ..evaluation import EvaluateCandidate, EvaluateLowFidelity, EvaluationResult, Incumbents, Outcome, TrialJob
from ..problem import Problem
from ..run import Recorder, State
from ..values import (
    Candidate,
    Completed,
    EarlyStopped,
    Failed,
    Kind,
    Limits,
    LowFidelity,
    Trial,
    pack_losses,
    trial_to_record,
    unpack_losses,
)
from ._cost_model import CostModel, guide_on_every_device

SCREENED_FROM = 1024
"""Search splits of at least so many samples are screened."""
SCREENED_SHARE, LEAST_SCREENED = 1 / 16, 128
"""Share of the split that a candidate is first evaluated on, and the least number of samples. On fewer samples the
divergences of two neighbours on the front cannot be told apart."""


class TrialFactory:
    """Makes the jobs that evaluate candidates, and trials of what comes back.

    It keeps the incumbents: completed trials that a proposed candidate is compared with, and stopped early when it
    surely loses. Those of an earlier session are read from the state.

    costs   cost model of the space
    limits  metric -> (least or None, most or None), in absolute figures
    state   state of the run
    """

    def __init__(self, costs: CostModel, limits: Limits, state: State) -> None:
        problem = costs.problem
        self.problem, self.costs, self.limits = problem, costs, limits
        self.n_screened = screening_samples(len(problem.context.split), problem.task.search.screen)
        self.incumbents = Incumbents(
            guide_on_every_device(problem), list(costs.rows), limits, _sequential_test(problem)
        )  # fmt: skip
        for trial in state.trials:
            if isinstance(trial, Completed) and trial.number in state.losses:
                self.incumbents.add(trial, unpack_losses(state.losses[trial.number]))

    def screen_job(self, number: int, candidate: Candidate, kind: Kind = "mixed") -> TrialJob:
        """Job that evaluates a candidate on the first samples of the search split."""
        return EvaluateLowFidelity(
            number=number, kind=kind, candidate=candidate, n_samples=self.n_screened,
            timeout_s=self.problem.task.budget.trial_timeout_s,
        )  # fmt: skip

    def trial_job(self, number: int, candidate: Candidate, kind: Kind = "mixed") -> TrialJob:
        """Job that evaluates a candidate on the whole search split.

        A baseline is evaluated to its end. A proposed candidate may be stopped early by an incumbent.
        """
        incumbents = self.incumbents
        return EvaluateCandidate(
            number=number, kind=kind, candidate=candidate, quality=incumbents.quality, test=incumbents.test,
            incumbent=incumbents.to_beat(self.costs.metrics_of(candidate)) if kind == "mixed" else None,
            n_low_fidelity=self.n_screened, timeout_s=self.problem.task.budget.trial_timeout_s,
        )  # fmt: skip

    def record(self, outcome: Outcome[TrialJob, EvaluationResult], recorder: Recorder) -> Trial:
        """Make a trial of a job's outcome and record it, with its losses if it becomes an incumbent."""
        trial = self.trial_of(outcome)
        record = trial_to_record(trial)
        losses = outcome.result.losses if isinstance(trial, Completed) else None
        if isinstance(trial, Completed) and losses is not None and self.incumbents.add(trial, losses):
            record |= {"losses": pack_losses(losses)}
        recorder.append(record)
        return trial

    def trial_of(self, outcome: Outcome[TrialJob, EvaluationResult]) -> Trial:
        """Make a trial of the outcome of a `screen_job` or `trial_job`."""
        number, kind, candidate = outcome.job.number, outcome.job.kind, outcome.job.candidate
        if outcome.error is not None:
            return Failed(
                number=number, candidate=candidate, kind=kind, reason=outcome.error,
                seed=self.problem.task.search.seed, seconds=outcome.seconds, attempts=outcome.job.attempt,
                metrics=self._known_costs(candidate),
            )  # fmt: skip
        result = outcome.result
        metrics = {**result.metrics, **self.costs.metrics_of(candidate)}
        if isinstance(outcome.job, EvaluateLowFidelity):
            return LowFidelity(
                number=number, candidate=candidate, kind=kind, metrics=metrics, samples=result.samples,
                seconds=outcome.seconds,
            )  # fmt: skip
        if (rival := result.beaten_by) is not None:
            total = len(self.problem.context.split)
            return EarlyStopped(
                number=number, candidate=candidate, kind=kind, metrics=metrics, beaten_by=rival,
                reason=f"t{rival} is no dearer, and after {result.samples} of {total} samples surely no worse",
                samples=result.samples, seconds=outcome.seconds,
            )  # fmt: skip
        return Completed(
            number=number,
            candidate=candidate,
            kind=kind,
            metrics=metrics,
            seconds=outcome.seconds,
            samples=result.samples,
            worker=outcome.worker,
            screen=result.low_fidelity,
        )

    def _known_costs(self, candidate: Candidate) -> Mapping[str, Measurement]:
        """Costs of a candidate that failed; empty for one that leaves too little of a layer."""
        try:
            return self.costs.metrics_of(candidate)
        except SpecError:
            return {}


def screening_samples(total: int, asked: int | None) -> int:
    """Number of samples that a proposed candidate is screened on; 0 if all are evaluated on the whole split at once.

    Baselines are evaluated on the whole split too, and their figures on the first samples are kept apart. Of very many
    baselines only the promising ones are (`screened_baselines`).

    total  samples of the search split
    asked  [search] screen; None: large splits are screened
    """
    if asked is not None:
        return asked if asked < total else 0
    return max(LEAST_SCREENED, round(SCREENED_SHARE * total)) if total >= SCREENED_FROM else 0


def free_numbers(used: set[int]) -> Iterator[int]:
    """Yield the numbers from 0 up that are not used."""
    number = 0
    while True:
        if number not in used:
            yield number
        number += 1


def _sequential_test(problem: Problem) -> SequentialTest | None:
    """None where the task switches racing off, the split is too small for a look at a part of it, or the search is led
    by a figure of the whole data set, of which a part says too little.
    """
    from ...evaluators import default_looks

    total, options = len(problem.context.split), problem.task.search
    looks = default_looks(total)
    if not options.race or not looks:
        return None
    led_by_metric = any(o.name == problem.context.metric.name for o in problem.guide)
    if led_by_metric and not problem.context.metric.is_mean:
        return None
    # a share of the mean means something for a divergence, which is never negative; a metric's scores may be anything
    is_divergence = any(o.name == "divergence" for o in problem.guide)
    return SequentialTest(
        looks=looks, total=total, margin=options.race_margin if is_divergence else 0.0, alpha=options.race_error
    )
