"""Divergence from the original's outputs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paredown.evaluators import METRICS, MetricError, divergence_per_sample, metric_from_callable, resolve_divergence
from paredown.evaluators.quality import _divergence


def test_kl_by_hand() -> None:
    reference = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
    outputs = torch.tensor([[0.25, 0.75], [0.25, 0.75]]).log()
    scores = divergence_per_sample(outputs, reference)
    assert scores.tolist() == [pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3)), pytest.approx(0.0, abs=1e-12)]
    assert scores.dtype == torch.float64


def test_kl_is_averaged_over_positions() -> None:
    reference = torch.tensor([[[0.5, 0.5], [0.25, 0.75]]]).log()
    outputs = torch.tensor([[[0.25, 0.75], [0.25, 0.75]]]).log()
    expected = (0.5 * math.log(2) + 0.5 * math.log(2 / 3)) / 2
    assert divergence_per_sample(outputs, reference).tolist() == [pytest.approx(expected)]


@given(st.integers(0, 10_000), st.floats(-50, 50))
def test_kl_is_never_negative_and_blind_to_a_shift(seed: int, shift: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    outputs, reference = (3 * torch.randn(4, 2, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    scores = divergence_per_sample(outputs, reference)
    assert scores.shape == (4,)
    assert bool((scores >= 0).all())
    torch.testing.assert_close(divergence_per_sample(outputs + shift, reference), scores, rtol=1e-6, atol=1e-9)
    assert divergence_per_sample(outputs, outputs).abs().max() == 0


def test_kl_of_small_changes_is_not_lost_in_rounding() -> None:
    """KL is quadratic in the change: half the change, a quarter of it."""
    generator = torch.Generator().manual_seed(0)
    reference, direction = torch.randn(3, 10, generator=generator), torch.randn(3, 10, generator=generator)
    one, half = (
        divergence_per_sample(reference.double() + step * direction, reference.double()) for step in (2e-4, 1e-4)
    )
    torch.testing.assert_close(one / half, torch.full((3,), 4.0, dtype=torch.float64), rtol=1e-3, atol=0.0)


def test_masked_answers_are_no_difference() -> None:
    reference = torch.tensor([[1.0, -torch.inf, 0.0]])
    outputs = torch.tensor([[1.0, -torch.inf, 0.0]])
    assert divergence_per_sample(outputs, reference).tolist() == [0.0]


def test_mse_is_relative_to_the_variance() -> None:
    reference = torch.tensor([[0.0, 2.0], [4.0, 6.0]])  # variance 5
    outputs = reference + torch.tensor([[1.0, 1.0], [0.0, 2.0]])
    assert divergence_per_sample(outputs, reference, "mse").tolist() == [pytest.approx(0.2), pytest.approx(0.4)]
    assert divergence_per_sample(outputs, reference, "mse", variance=10.0).tolist() == [
        pytest.approx(0.1),
        pytest.approx(0.2),
    ]
    scaled = divergence_per_sample(outputs * 7, reference * 7, "mse")
    assert scaled.tolist() == [pytest.approx(0.2), pytest.approx(0.4)]


def test_a_constant_reference_is_measured_absolutely() -> None:
    assert divergence_per_sample(torch.full((2, 3), 3.0), torch.ones(2, 3), "mse").tolist() == [4.0, 4.0]


@pytest.mark.parametrize("kind", ["kl", "mse"])
def test_chunks_change_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, reference = (torch.randn(7, 3, 5, generator=generator) for _ in range(2))
    whole = divergence_per_sample(outputs, reference, kind)
    monkeypatch.setattr(_divergence, "CHUNK", 30)
    torch.testing.assert_close(divergence_per_sample(outputs, reference, kind), whole, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize(
    ("outputs", "kind", "message"),
    [
        (torch.zeros(2, 4), "kl", r"expected outputs \(2, 3\), as the reference, got \(2, 4\)"),
        (torch.full((2, 3), torch.nan), "kl", "not finite for 2 of 2"),
        (torch.tensor([[0.0, 0.0, 0.0], [0.0, torch.nan, 0.0]]), "mse", r"1 of 2 samples \(the first is sample 1\)"),
        (torch.tensor([[0.0, -torch.inf, 0.0], [0.0, 0.0, 0.0]]), "kl", "not finite for 1 of 2"),
        (torch.zeros(2, 3), "js", "must be one of kl, mse, got 'js'"),
    ],
)
def test_what_has_no_divergence_is_refused(outputs: torch.Tensor, kind: str, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        divergence_per_sample(outputs, torch.zeros(2, 3), kind)


def test_kl_of_a_single_class_is_refused() -> None:
    with pytest.raises(MetricError, match="at least 2 classes last, got \\(5, 1\\); use 'mse'"):
        divergence_per_sample(torch.zeros(5, 1), torch.ones(5, 1), "kl")


def test_auto_follows_the_metric_and_else_the_targets() -> None:
    assert [resolve_divergence("auto", METRICS[name]) for name in ("accuracy", "perplexity", "mse", "cosine")] == [
        "kl",
        "kl",
        "mse",
        "mse",
    ]
    mine = metric_from_callable(lambda outputs, targets: outputs, "mine", True)
    assert resolve_divergence("auto", mine, torch.tensor([1, 2])) == "kl"
    assert resolve_divergence("auto", mine, torch.tensor([1.0])) == "mse"
    assert resolve_divergence("auto", mine) == "mse"
    assert resolve_divergence("mse", METRICS["accuracy"]) == "mse"
    with pytest.raises(MetricError, match="one of auto, kl, mse, got 'cos'"):
        resolve_divergence("cos", mine)
