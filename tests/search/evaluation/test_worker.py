"""A worker's model is the same after any job, even after one that was interrupted in the wrong moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from paredown.compressors import LayerSpec, model_digest
from paredown.evaluators.sensitivity import PrefixCache
from paredown.search import Task
from paredown.search.evaluation import Job, Worker, run_job
from paredown.search.problem import prepare
from paredown.search.workers import InProcess


@pytest.fixture
def worker(tiny_task: Callable[..., Task], tmp_path: Path) -> Worker:
    return Worker(prepare(tiny_task(), store=tmp_path / "store").context)


def test_a_trial_leaves_the_model_as_it_was(worker: Worker) -> None:
    before = model_digest(worker.context.model)
    lowest = [len(group.levels) - 1 for group in worker.context.space.groups]
    first = worker.trial(lowest, 160)
    assert model_digest(worker.context.model) == before
    assert worker.trial(lowest, 160) == first
    assert [row["value"] for row in worker.rows(0, [0], 32)] == [pytest.approx(0.0, abs=1e-6)]
    assert worker.rows(0, [lowest[0]], 32)[0]["value"] > 0
    assert model_digest(worker.context.model) == before


def test_reset_undoes_a_half_applied_candidate(worker: Worker) -> None:
    model, before = worker.context.model, model_digest(worker.context.model)
    x = torch.randn(4, 16)
    expected = model(x)
    spec = LayerSpec(weight_bits=2, activation_bits=8)
    context = worker._resident.apply({"first": spec}, worker.variants({"first": spec}))
    context.__enter__()  # and never left: the interruption struck in between
    assert model_digest(model) != before
    worker.reset()
    assert model_digest(model) == before
    assert torch.equal(model(x), expected)
    assert worker.trial([0, 0, 0], 32)["divergence"].value == pytest.approx(0.0, abs=1e-6)
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
    assert worker.rows(2, [1], 32)[0]["value"] > 0
    del context


def test_an_expired_job_says_so_whatever_caught_it(tiny_task: Callable[..., Task], tmp_path: Path) -> None:
    pool = InProcess(prepare(tiny_task(trouble="hang"), store=tmp_path / "store").context)
    lowest = tuple(len(group.levels) - 1 for group in pool._worker.context.space.groups)
    before = model_digest(pool._worker.context.model)
    pool.submit(Job(method="trial", args=(lowest, 32), timeout_s=0.2))
    (outcome,) = pool.wait()
    assert outcome.error is not None
    assert "still running after 0.2 s" in outcome.error
    assert model_digest(pool._worker.context.model) == before
    pool.submit(Job(method="trial", args=((0, 0, 0), 32)))
    assert pool.wait()[0].error is None


def test_a_job_that_raises_is_an_outcome(worker: Worker) -> None:
    outcome = run_job(worker, Job(method="trial", args=((99, 0, 0), 32)), {})
    assert outcome.value is None
    assert outcome.error is not None
    assert "level of first must be in" in outcome.error
