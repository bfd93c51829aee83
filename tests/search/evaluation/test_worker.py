"""A worker's model is the same after any job, even after one that was interrupted in the wrong moment."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from paredown.compressors import LayerSpec, model_digest
from paredown.errors import ParedownError
from paredown.evaluators import SequentialTest
from paredown.evaluators.sensitivity import PrefixCache
from paredown.search import Candidate, Task
from paredown.search.evaluation import (
    AnyJob,
    BuildVariants,
    EstimateSensitivity,
    EvaluateCandidate,
    EvaluateLowFidelity,
    Incumbent,
    Job,
    MeasureRows,
    Worker,
    run_job,
)
from paredown.search.problem import EvaluationContext, prepare
from paredown.search.workers import InProcess, python_path


@dataclass(frozen=True, slots=True, kw_only=True)
class CountParameters(Job["CountParameters", int]):
    """A job that this package does not know."""

    fqn: str

    def run(self, worker: Worker) -> int:
        return worker.candidate_model.layers.resident.weight(self.fqn).numel()


def _lowest(context: EvaluationContext) -> Candidate:
    return Candidate(levels=tuple(len(group.levels) - 1 for group in context.space.groups))


def _job(candidate: Candidate, timeout_s: float = 0.0) -> EvaluateLowFidelity:
    return EvaluateLowFidelity(number=1, kind="mixed", candidate=candidate, n_samples=32, timeout_s=timeout_s)


@pytest.fixture
def worker(tiny_task: Callable[..., Task], tmp_path: Path) -> Worker:
    return Worker(prepare(tiny_task(), store=tmp_path / "store").context)


def test_a_trial_leaves_the_model_as_it_was(worker: Worker) -> None:
    before = model_digest(worker.context.model)
    lowest = _lowest(worker.context)
    first = worker.evaluate_low_fidelity(lowest, 160).metrics
    assert model_digest(worker.context.model) == before
    assert worker.evaluate_low_fidelity(lowest, 160).metrics == first
    assert [row.value for row in worker.measure_rows(0, [0], 32)] == [pytest.approx(0.0, abs=1e-6)]
    assert (worker.measure_rows(0, [lowest.levels[0]], 32)[0].value or 0.0) > 0
    assert model_digest(worker.context.model) == before


def test_reset_undoes_a_half_applied_candidate(worker: Worker) -> None:
    model, before = worker.context.model, model_digest(worker.context.model)
    x = torch.randn(4, 16)
    expected = model(x)
    spec = LayerSpec(weight_bits=2, activation_bits=8)
    context = worker.candidate_model.apply({"first": spec}, batch_norm=False)
    context.__enter__()  # and never left: the interruption struck in between
    assert model_digest(model) != before
    worker.reset()
    assert model_digest(model) == before
    assert torch.equal(model(x), expected)
    found = worker.evaluate_low_fidelity(Candidate(levels=(0, 0, 0)), 32)
    assert found.metrics["divergence"].value == pytest.approx(0.0, abs=1e-6)
    del context


def test_reset_undoes_a_half_made_replay(worker: Worker) -> None:
    model = worker.context.model
    inputs = worker.context.split.take(4).inputs
    expected = model(inputs)
    cache = PrefixCache.record(model, inputs, worker.context.anatomy)
    context = cache.before(("last",))
    context.__enter__()  # and never left: the interruption struck in between
    assert any("forward" in vars(module) for module in model.modules())
    worker.reset()
    assert not any("forward" in vars(module) for module in model.modules())
    assert torch.equal(model(inputs), expected)
    assert (worker.measure_rows(2, [1], 32)[0].value or 0.0) > 0
    del context


def test_an_expired_job_says_so_whatever_caught_it(tiny_task: Callable[..., Task], tmp_path: Path) -> None:
    context = prepare(tiny_task(trouble="hang"), store=tmp_path / "store").context
    pool, before = InProcess(context), model_digest(context.model)
    pool.submit(_job(_lowest(context), timeout_s=0.2))
    (outcome,) = pool.wait()
    assert outcome.error is not None
    assert "still running after 0.2 s" in outcome.error
    assert model_digest(context.model) == before
    pool.submit(_job(Candidate(levels=(0, 0, 0))))
    assert pool.wait()[0].error is None


def test_a_job_that_raises_is_an_outcome(worker: Worker) -> None:
    outcome = run_job(worker, _job(Candidate(levels=(99, 0, 0))), {})
    assert outcome.value is None
    assert outcome.error is not None
    assert "level of first must be in" in outcome.error
    with pytest.raises(ParedownError, match=r"expected the result of EvaluateLowFidelity.*level of first must be in"):
        assert outcome.result


def test_a_job_of_one_s_own_is_one_class(worker: Worker) -> None:
    outcome = run_job(worker, CountParameters(fqn="first", attempt=2), {"pid": 1})
    assert outcome.job.fqn == "first"
    assert outcome.result == 16 * 24
    assert outcome.worker == {"pid": 1}
    assert outcome.job.next_attempt() == CountParameters(fqn="first", attempt=3)


def test_jobs_and_outcomes_can_be_pickled(worker: Worker) -> None:
    candidate = Candidate(levels=(1, 1, 1))
    incumbent = Incumbent(number=3, costs=(1.0,), loss=0.5, losses=np.ones(160, dtype=np.float32))
    test = SequentialTest(looks=(32, 64), total=160)
    jobs: list[AnyJob] = [
        BuildVariants(fqn="first", specs=(LayerSpec(), LayerSpec(weight_bits=4))),
        EstimateSensitivity(n_samples=16, seed=0),
        MeasureRows(group=0, levels=(1, 2), n_samples=32, n_frame=8),
        EvaluateLowFidelity(number=4, kind="mixed", candidate=candidate, n_samples=32),
        EvaluateCandidate(
            number=5, kind="mixed", candidate=candidate, quality="divergence", test=test, incumbent=incumbent
        ),
    ]
    for job in jobs:
        again = pickle.loads(pickle.dumps(job))
        assert type(again) is type(job)
        assert again.timeout_s == job.timeout_s
        here, there = (pickle.loads(pickle.dumps(run_job(worker, each, {}))) for each in (job, again))
        assert here.error is None
        if isinstance(job, EvaluateCandidate):
            assert here.value.metrics == there.value.metrics
        elif not isinstance(job, EvaluateLowFidelity):
            assert here.value == there.value


def test_jobs_can_be_imported_without_torch() -> None:
    """So a process that only submits jobs starts fast."""
    code = "import sys; sys.modules['torch'] = None; import paredown.search.workers, paredown.search.evaluation"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": python_path()})
