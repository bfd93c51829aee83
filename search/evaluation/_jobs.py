"""Jobs: what the driver asks of a worker, and what came of it.

A job is a frozen value. It names what it is about, so that its outcome tells the submitter which one it belongs to.
A new kind of job is one more dataclass here, or in any file that may import this one.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar, cast

from ...errors import ParedownError
from ..values import Candidate, Kind, Row, reason
from ._repair_trial import Repairs, RepairTrial
from ._results import BuiltVariant, EvaluationResult, SensitivityEstimate

if TYPE_CHECKING:
    from ...compressors import LayerSpec
    from ...evaluators import SequentialTest, Split
    from ._incumbents import Incumbent
    from ._worker import Worker

J = TypeVar("J", bound="Job[Any, Any]")
"""A kind of job."""
R = TypeVar("R")
"""The result of a job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(ABC, Generic[J, R]):
    """One piece of work for a worker; `class Train(Job["Train", Weights])` is a job whose result is `Weights`.

    A job can be pickled, and so can its result. It may be run again by another worker, with the same result.

    timeout_s  seconds after which the job is stopped; 0: never
    attempt    counts from 1; see `next_attempt`
    """

    timeout_s: float = 0.0
    attempt: int = 1

    @abstractmethod
    def run(self, worker: Worker) -> R:
        """Do the work. Any exception becomes the reason of the job's failure."""

    def next_attempt(self) -> Self:
        """Give the same job for another try."""
        return replace(self, attempt=self.attempt + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildVariants(Job["BuildVariants", tuple[BuiltVariant, ...]]):
    """Build the variants of one layer in the store, one for each spec."""

    fqn: str
    specs: tuple[LayerSpec, ...]

    def run(self, worker: Worker) -> tuple[BuiltVariant, ...]:
        return worker.build_variants(self.fqn, self.specs)


@dataclass(frozen=True, slots=True, kw_only=True)
class TryRepairs(Job["TryRepairs", RepairTrial]):
    """Try choices of repairs at uniform settings; the fields are the arguments of `try_repairs`."""

    choices: tuple[Repairs, ...]
    settings: tuple[Mapping[str, LayerSpec], ...]
    fit: Split
    aside: Split

    def run(self, worker: Worker) -> RepairTrial:
        return worker.try_repairs(self.choices, self.settings, self.fit, self.aside)


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateSensitivity(Job["EstimateSensitivity", SensitivityEstimate]):
    """Estimate the whole sensitivity table from gradients on the first `n_samples` of the search split."""

    n_samples: int
    seed: int

    def run(self, worker: Worker) -> SensitivityEstimate:
        return worker.estimate_sensitivity(self.n_samples, self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureRows(Job["MeasureRows", tuple[Row, ...]]):
    """Measure rows of the sensitivity table: these levels of one group, each alone.

    n_samples  the first samples of the search split, on which the divergence is measured
    n_frame    samples whose output perturbations are kept too; 0: none
    """

    group: int
    levels: tuple[int, ...]
    n_samples: int
    n_frame: int = 0

    def run(self, worker: Worker) -> tuple[Row, ...]:
        return worker.measure_rows(self.group, self.levels, self.n_samples, self.n_frame)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialJob(Job["TrialJob", EvaluationResult]):
    """Evaluate a candidate for the trial of this number."""

    number: int
    kind: Kind
    candidate: Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateLowFidelity(TrialJob):
    """Evaluate a candidate on the first `n_samples` of the search split."""

    n_samples: int

    def run(self, worker: Worker) -> EvaluationResult:
        return worker.evaluate_low_fidelity(self.candidate, self.n_samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateCandidate(TrialJob):
    """Evaluate a candidate on the whole search split, or until it surely does not beat the incumbent.

    quality         name of the metric whose losses are compared and returned; None: neither
    test            compares the losses; None: the candidate is never stopped early
    incumbent       what the candidate has to beat; None: nothing
    n_low_fidelity  first samples whose metrics are returned separately too; 0: none
    """

    quality: str | None = None
    test: SequentialTest | None = None
    incumbent: Incumbent | None = None
    n_low_fidelity: int = 0

    def run(self, worker: Worker) -> EvaluationResult:
        return worker.evaluate(
            self.candidate, quality=self.quality, test=self.test, incumbent=self.incumbent,
            n_low_fidelity=self.n_low_fidelity,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[J, R]):
    """The end of a job: its result, or the reason why there is none.

    value    the result; None if the job failed
    error    why it failed, in a line; None if it did not
    fatal    the worker itself is gone (it died, or hung and was killed); only then is another attempt worth it
    seconds  wall clock of the job
    worker   facts about the worker, recorded with every trial
    """

    job: J
    value: R | None = None
    error: str | None = None
    fatal: bool = False
    seconds: float = 0.0
    worker: Mapping[str, Any] = field(default_factory=dict)

    @property
    def result(self) -> R:
        """The result of a job that succeeded. Raises `ParedownError` for one that failed."""
        if self.value is None:
            raise ParedownError(
                f"expected the result of {self.job}, got a failure: {self.error}; look at `error` first"
            )
        return self.value


AnyJob: TypeAlias = Job[Any, Any]
AnyOutcome: TypeAlias = Outcome[Any, Any]


def run_job(worker: Worker, job: Job[J, R], facts: Mapping[str, Any]) -> Outcome[J, R]:
    """Run a job on this worker. Any exception that it raises becomes the outcome's error.

    facts  about the worker, for the outcome
    """
    start = time.perf_counter()
    value, error = None, None
    try:
        value = job.run(worker)
    except (Exception, SystemExit) as exception:  # a candidate may fail in any way at all; the reason is recorded
        error = reason(exception)
    seconds = time.perf_counter() - start
    return Outcome(job=cast("J", job), value=value, error=error, seconds=seconds, worker=facts)
