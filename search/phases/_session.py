"""One sitting at a run: what the phases share, and how they get jobs done."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

from ...compressors import LayerSpec
from ...errors import Interrupted
from ...evaluators import Measurement, SequentialTest
from ..evaluation import (
    EvaluateCandidate,
    EvaluateLowFidelity,
    EvaluationResult,
    Incumbents,
    Job,
    LayerVariants,
    LevelCosts,
    Outcome,
    PrunedModelBuilder,
    TrialJob,
    exact_totals,
)
from ..problem import Problem
from ..run import Recorder
from ..values import (
    MODELLED,
    Candidate,
    Completed,
    EarlyStopped,
    Failed,
    Kind,
    LowFidelity,
    Objective,
    Trial,
    metric_on_device,
    pack_losses,
    static_measurements,
    structure_of,
    unpack_losses,
)
from ..workers import Pool

if TYPE_CHECKING:
    from ...evaluators.prediction import LatencyTable
    from ..run import State, StoredRun
    from ..task import Task

J = TypeVar("J", bound=Job[Any, Any])
R = TypeVar("R")

SCREENED_FROM = 1024
"""Search splits of so many samples and more are screened."""
SCREENED_SHARE, LEAST_SCREENED = 1 / 16, 128
"""Of the split, that a candidate is seen on first, and at least so many samples: with fewer the divergence of two
neighbours on the front cannot be told apart."""
MAX_ATTEMPTS = 2
"""Of a job whose worker died. Ray's own retries are off."""


@dataclass(slots=True, kw_only=True)
class SearchSession:
    """costs, fixed   metric -> per group, per level; and what is paid whatever is chosen (`static_costs`)
    original_costs  the same of the model as it came
    stopping        set by a signal
    latency         where latencies are predicted from measurements: from what
    """

    run: StoredRun
    recorder: Recorder
    problem: Problem
    pool: Pool
    stopping: threading.Event
    costs: LevelCosts = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)
    original_costs: Mapping[str, float] = field(default_factory=dict)
    latency: LatencyTable | None = None
    _rivals: Incumbents | None = None
    _pruned_models: PrunedModelBuilder | None = None
    _last: tuple[Candidate, dict[str, float]] | None = None

    @property
    def task(self) -> Task:
        return self.run.task

    @property
    def state(self) -> State:
        return self.run.state

    def stop_if_asked(self) -> None:
        """Raises `Interrupted` if a signal has asked for a stop. Everything that is finished is in the ledger by
        then."""
        if self.stopping.is_set():
            raise Interrupted(f"stopped; `paredown resume {self.run.path}` goes on from here")

    @property
    def out_of_time(self) -> bool:
        budget = self.task.budget
        return (
            self.stopping.is_set()
            or (budget.time is not None and self.recorder.watch.spent_s >= budget.time)
            or (budget.core_hours is not None and self.state.core_seconds >= 3600 * budget.core_hours)
        )

    def ends_within(self, n: int) -> bool:
        """Whether so many evaluations on the whole split take what is left of the time."""
        budget = self.task.budget
        timed = [t.seconds for t in self.state.trials if isinstance(t, Completed)]
        if not n or not timed or (budget.time is None and budget.core_hours is None):
            return False
        seconds = n * median(timed)
        if budget.time is not None and self.recorder.watch.spent_s + seconds / self.n_workers >= budget.time:
            return True
        return budget.core_hours is not None and self.state.core_seconds + seconds >= 3600 * budget.core_hours

    @property
    def n_workers(self) -> int:
        return max(1, self.recorder.workers)

    def run_jobs(self, jobs: Sequence[Job[J, R]], *, within_budget: bool = False) -> Iterator[Outcome[J, R]]:
        """Every job's outcome, in any order; a job whose worker died gets another attempt.

        A signal stops it after what is running (`Interrupted`); with `within_budget`, the end of the time does so
        quietly.
        """
        waiting = list(reversed(jobs))
        while True:
            hold = self.stopping.is_set() or (within_budget and self.out_of_time)
            while self.pool.idle and waiting and not hold:
                self.pool.submit(waiting.pop())
            if not self.pool.busy:
                break
            for outcome in self.pool.wait(timeout_s=1.0):
                if (again := next_attempt(outcome)) is not None:
                    waiting.append(again)
                else:
                    yield outcome
        if waiting:
            self.stop_if_asked()

    @property
    def rivals(self) -> Incumbents:
        """Whom candidates have to beat. Only when the costs and the limits are known."""
        if self._rivals is None:
            self._rivals = Incumbents(
                on_every_device(self.problem), list(self.costs), self.recorder.limits,
                _sequential_test(self.task, self.problem),
            )  # fmt: skip
            for trial in self.state.trials:
                if isinstance(trial, Completed) and trial.number in self.state.losses:
                    self._rivals.add(trial, unpack_losses(self.state.losses[trial.number]))
        return self._rivals

    @property
    def n_screened(self) -> int:
        """Samples that a proposed candidate is seen on before it is decided whether it is seen on all; 0: all at once.

        Baselines are seen on all, but what they say on these is told apart; of very many only the contenders are.
        """
        total, asked = len(self.problem.context.split), self.task.search.screen
        if asked is not None:
            return asked if asked < total else 0
        return max(LEAST_SCREENED, round(SCREENED_SHARE * total)) if total >= SCREENED_FROM else 0

    def screen_job(self, number: int, candidate: Candidate, kind: Kind = "mixed") -> TrialJob:
        return EvaluateLowFidelity(
            number=number, kind=kind, candidate=candidate, n_samples=self.n_screened,
            timeout_s=self.task.budget.trial_timeout_s,
        )  # fmt: skip

    def trial_job(self, number: int, kind: Kind, candidate: Candidate) -> TrialJob:
        """A baseline is seen to its end; what a searcher proposed has somebody to beat."""
        rivals = self.rivals
        return EvaluateCandidate(
            number=number, kind=kind, candidate=candidate, quality=rivals.quality, test=rivals.test,
            incumbent=rivals.to_beat(self.static(candidate)) if kind == "mixed" else None,
            n_low_fidelity=self.n_screened, timeout_s=self.task.budget.trial_timeout_s,
        )  # fmt: skip

    def record_trial(self, outcome: Outcome[TrialJob, EvaluationResult]) -> Trial:
        """What a trial job's outcome amounts to, when it is in the ledger."""
        trial = self.trial_of(outcome)
        losses = outcome.result.losses if isinstance(trial, Completed) else None
        if isinstance(trial, Completed) and losses is not None and self.rivals.add(trial, losses):
            self.recorder.trial(trial, losses=pack_losses(losses))
        else:
            self.recorder.trial(trial)
        return trial

    def trial_of(self, outcome: Outcome[TrialJob, EvaluationResult]) -> Trial:
        """What a trial job's outcome amounts to."""
        number, kind, candidate = outcome.job.number, outcome.job.kind, outcome.job.candidate
        if outcome.error is not None:
            return Failed(
                number=number, candidate=candidate, kind=kind, reason=outcome.error, seed=self.task.search.seed,
                seconds=outcome.seconds, attempts=outcome.job.attempt,
            )  # fmt: skip
        found = outcome.result
        metrics = {**found.metrics, **self.static(candidate)}
        if isinstance(outcome.job, EvaluateLowFidelity):
            return LowFidelity(
                number=number, candidate=candidate, kind=kind, metrics=metrics, samples=found.samples,
                seconds=outcome.seconds,
            )  # fmt: skip
        if (rival := found.beaten_by) is not None:
            total = len(self.problem.context.split)
            return EarlyStopped(
                number=number, candidate=candidate, kind=kind, metrics=metrics, beaten_by=rival,
                reason=f"t{rival} is no dearer, and after {found.samples} of {total} samples surely no worse",
                samples=found.samples, seconds=outcome.seconds,
            )  # fmt: skip
        return Completed(
            number=number,
            candidate=candidate,
            kind=kind,
            metrics=metrics,
            seconds=outcome.seconds,
            samples=found.samples,
            worker=outcome.worker,
            screen=found.low_fidelity,
        )

    def static(self, candidate: Candidate) -> dict[str, Measurement]:
        """Bytes, MACs, BOPs and what is modelled on each device: sums over the groups, no forward pass. A predicted
        latency is no sum: it is that of the whole model."""
        totals = {
            name: self.fixed[name] + sum(row[i] for row, i in zip(rows, candidate.levels, strict=True))
            for name, rows in self.costs.items()
        }
        problem = self.problem
        if structure_of(problem.space.assignment(candidate)):
            totals = self._exact(candidate)
        elif problem.devices[0].graph is not None:
            assignment = problem.space.assignment(candidate)
            for n, device in enumerate(problem.devices):
                found = device.exact(problem.anatomy, assignment)
                totals |= {
                    metric_on_device(name, device.profile.name if n else None): value for name, value in found.items()
                }
        metrics = static_measurements(totals, self.task.hardware.grid_g_per_kwh)
        if self.latency is not None:
            from ...evaluators.prediction import forms_of

            metrics["latency_ms"] = self.latency.predict(forms_of(problem.anatomy, problem.space.assignment(candidate)))
        return metrics

    def _exact(self, candidate: Candidate) -> dict[str, float]:
        """In this process: what is left of a layer is compressed to know its bytes."""
        if self._pruned_models is None:
            self._pruned_models = PrunedModelBuilder(LayerVariants(self.problem.context))
        if self._last is None or self._last[0] != candidate:
            self._last = (candidate, exact_totals(self.problem, self._pruned_models, candidate))
        return dict(self._last[1])

    def assignment(self, trial: Completed) -> dict[str, LayerSpec]:
        """fqn -> spec of a trial; the original's leaves every layer alone."""
        return {} if trial.kind == "original" else self.problem.space.assignment(trial.candidate)


def on_every_device(problem: Problem) -> list[Objective]:
    """The guide, and its costs on the further devices: who is beaten on one of them may still be wanted on another."""
    others = [device.profile.name for device in problem.devices[1:]]
    modelled = [o.name for o in problem.guide if o.name in MODELLED]
    return [*problem.guide, *(Objective(name=metric_on_device(name, device)) for device in others for name in modelled)]


def _sequential_test(task: Task, problem: Problem) -> SequentialTest | None:
    """None where the task has switched racing off, or the split is too small to look at a part of it."""
    from ...evaluators import default_looks

    total, options = len(problem.context.split), task.search
    looks = default_looks(total)
    if not options.race or not looks:
        return None
    # a share of the mean says something of a divergence, which is never negative; a metric's scores are anything
    is_divergence = any(o.name == "divergence" for o in problem.guide)
    return SequentialTest(
        looks=looks, total=total, margin=options.race_margin if is_divergence else 0.0, alpha=options.race_error
    )


def next_attempt(outcome: Outcome[J, R]) -> J | None:
    """The job once more, if its worker died (that may have been another's fault) and it has an attempt left."""
    if not outcome.fatal or outcome.job.attempt >= MAX_ATTEMPTS:
        return None
    return outcome.job.next_attempt()
