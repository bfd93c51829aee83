"""The metrics, by hand-computed cases."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from paredown.errors import InputError, ParedownError
from paredown.evaluators import (
    METRICS,
    Metric,
    MetricError,
    Split,
    get_metric,
    metric_from_callable,
    register_metric,
)
from paredown.evaluators.quality import _register

ACCURACY, PERPLEXITY, MSE, COSINE = (METRICS[name] for name in ("accuracy", "perplexity", "mse", "cosine"))


def test_accuracy_counts_right_answers() -> None:
    logits = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [-torch.inf, 0.0]])
    scores = ACCURACY.scores(logits, torch.tensor([1, 0, 0, 1]))
    assert scores.tolist() == [1.0, 1.0, 0.0, 1.0]
    assert scores.dtype == torch.float64
    assert ACCURACY.value(scores) == 0.75


def test_accuracy_of_positions_is_a_share_and_leaves_ignored_ones_out() -> None:
    logits = torch.tensor([[[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]])
    assert ACCURACY.scores(logits, torch.tensor([[1, 0, 1]])).tolist() == [[2.0, 3.0]]
    assert ACCURACY.scores(logits, torch.tensor([[1, 0, -100]])).tolist() == [[2.0, 2.0]]
    both = ACCURACY.scores(logits.expand(2, 3, 2), torch.tensor([[1, -100, -100], [1, 0, 1]]))
    assert ACCURACY.value(both) == 3 / 4  # of all positions, and not the mean of 1 and 2/3


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        (torch.zeros(3, 1), torch.zeros(3).long(), "at least 2 classes"),
        (torch.zeros(3), torch.zeros(3).long(), "at least 2 classes"),
        (torch.zeros(3, 4), torch.zeros(3), "integer targets"),
        (torch.zeros(3, 4), torch.zeros(3, 4).long(), r"expected targets \(3,\) .* got \(3, 4\)"),
        (torch.zeros(3, 4), torch.zeros(2).long(), r"expected targets \(3,\)"),
        (torch.zeros(3, 4), torch.tensor([1, 4, 0]), r"in \[0, 4\), got 0 to 4"),
        (torch.zeros(3, 4), torch.tensor([1, -1, 0]), "got -1 to 1"),
        (torch.zeros(2, 4), torch.tensor([1, -100]), "sample 1 has no target that counts"),
        (torch.zeros(3, 4), None, "needs targets"),
    ],
)
def test_accuracy_refuses_what_it_would_get_wrong(outputs: Tensor, targets: Tensor | None, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        ACCURACY.scores(outputs, targets)


@given(vocabulary=st.integers(2, 50), length=st.integers(1, 6))
def test_the_perplexity_of_knowing_nothing_is_the_vocabulary(vocabulary: int, length: int) -> None:
    scores = PERPLEXITY.scores(torch.zeros(2, length, vocabulary), torch.zeros(2, length, dtype=torch.int64))
    assert PERPLEXITY.value(scores) == pytest.approx(vocabulary)


def test_perplexity_by_hand() -> None:
    logits = torch.tensor([[[0.5, 0.5], [0.25, 0.75]]]).log()
    scores = PERPLEXITY.scores(logits, torch.tensor([[0, 1]]))
    assert scores.tolist() == [[pytest.approx(math.log(2) + math.log(4 / 3)), 2.0]]
    assert PERPLEXITY.value(scores) == pytest.approx(math.sqrt(2 * 4 / 3))


def test_perplexity_takes_the_next_token() -> None:
    ids = torch.tensor([[5, 6, 7], [8, 9, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    expected = [[6, 7, -100], [9, 0, -100]]
    for inputs in (ids, (ids, torch.ones_like(mask)), {"input_ids": ids}):
        targets = PERPLEXITY.targets_of(Split("search", inputs))
        assert targets is not None
        assert targets.tolist() == expected
    masked = PERPLEXITY.targets_of(Split("search", {"input_ids": ids, "attention_mask": mask}))
    assert masked is not None
    assert masked.tolist() == [[6, 7, -100], [9, -100, -100]]


@pytest.mark.parametrize(
    "inputs", [torch.zeros(2, 5), torch.zeros(2, 1).long(), torch.zeros(2).long(), {"ids": torch.zeros(2, 5).long()}]
)
def test_perplexity_without_tokens_is_refused(inputs: Tensor | dict[str, Tensor]) -> None:
    with pytest.raises(MetricError, match="perplexity needs targets, or"):
        PERPLEXITY.targets_of(Split("search", inputs))


def test_a_perplexity_beyond_all_numbers_is_refused() -> None:
    with pytest.raises(MetricError, match=r"perplexity is inf \(the mean score is 1000.0\)"):
        PERPLEXITY.value(torch.tensor([1000.0]))


def test_mse_by_hand() -> None:
    scores = MSE.scores(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[1.0, 4.0], [3.0, 1.0]]))
    assert MSE.compact(scores).tolist() == [2.0, 5.0]
    assert MSE.scores(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0])).tolist() == [0.0, 4.0]
    with pytest.raises(MetricError, match=r"expected targets \(2, 1\), the shape of the outputs, got \(2,\)"):
        MSE.scores(torch.zeros(2, 1), torch.zeros(2))


def test_cosine_by_hand() -> None:
    outputs = torch.tensor([[1.0, 0.0], [1.0, 1.0], [-2.0, 0.0], [0.0, 0.0], [0.0, 0.0], [3.0, 3.0]])
    reference = torch.tensor([[0.0, 2.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [3.0, 3.0]])
    expected = [0.0, math.sqrt(0.5), -1.0, 1.0, 0.0, 1.0]
    assert COSINE.scores(outputs, None, reference).tolist() == [pytest.approx(value, abs=1e-12) for value in expected]
    with pytest.raises(MetricError, match=r"expected reference outputs \(6, 2\)"):
        COSINE.scores(outputs, None, reference[:, :1])
    with pytest.raises(MetricError, match="a vector for each sample"):
        COSINE.scores(outputs[:, 0], None, reference[:, 0])


def test_a_callable_becomes_a_metric() -> None:
    top2 = metric_from_callable(
        lambda outputs, targets: (outputs.topk(2).indices == targets[:, None]).any(dim=1), "top2", True
    )
    scores = top2.scores(torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), torch.tensor([1, 2]))
    assert scores.tolist() == [1.0, 0.0]
    assert top2.is_better(0.6, 0.5)
    assert not metric_from_callable(lambda outputs, targets: outputs, "loss", False).is_better(0.6, 0.5)


def test_a_callable_with_a_reference_gets_it() -> None:
    def apart(outputs: Tensor, targets: Tensor | None, reference: Tensor) -> Tensor:
        return (outputs - reference).abs().sum(dim=1)

    metric = metric_from_callable(apart, "apart", False)
    assert metric.needs_reference
    assert metric.scores(torch.ones(2, 3), None, torch.zeros(2, 3)).tolist() == [3.0, 3.0]
    with pytest.raises(MetricError, match="hand in its `reference`"):
        metric.scores(torch.ones(2, 3), None)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda outputs, targets: outputs.mean(), r"expected shape \(2,\), got \(\)"),
        (lambda outputs, targets: outputs, r"expected shape \(2,\), got \(2, 3\)"),
        (lambda outputs, targets: 0.5, r"shape \(2,\).* got float"),
        (lambda outputs, targets: torch.tensor([1.0, torch.nan]), "got nan for sample 1"),
        (lambda outputs, targets: torch.tensor([torch.inf, 1.0]), "got inf for sample 0"),
        (lambda outputs, targets: torch.tensor([1j, 1.0]), "real scores"),
    ],
)
def test_a_callable_that_gives_no_scores_is_refused(value: object, message: str) -> None:
    metric = metric_from_callable(value, "mine", True)  # type: ignore[arg-type]
    with pytest.raises(MetricError, match=message) as raised:
        metric.scores(torch.ones(2, 3), None)
    assert "mine" in str(raised.value)
    assert isinstance(raised.value, ParedownError)
    assert isinstance(raised.value, ValueError)
    assert isinstance(raised.value, InputError)
    assert raised.value.exit_code == 2


def test_what_is_no_function_or_no_name_is_refused() -> None:
    with pytest.raises(MetricError, match="must be a function"):
        metric_from_callable(3, "mine", True)  # type: ignore[arg-type]
    with pytest.raises(MetricError, match="letters, digits and _, got 'my metric'"):
        metric_from_callable(lambda outputs, targets: outputs, "my metric", True)


def test_the_register_refuses_a_second_and_names_the_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_register, "_METRICS", dict(_register._METRICS))
    mine = Metric(name="mine", maximise=True, per_sample=lambda outputs, targets, reference: outputs)
    register_metric(mine)
    assert get_metric("mine") is mine
    with pytest.raises(MetricError, match=r"'mine' is registered already; known are accuracy, .*, mine, mse"):
        register_metric(mine)
    with pytest.raises(MetricError, match="unknown metric 'acuracy'; known are accuracy, average_precision, cosine"):
        get_metric("acuracy")
