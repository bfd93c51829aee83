"""Intervals: by the textbook, and by what they must hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paredown.evaluators import METRICS, MetricError, Split, metric_from_callable, summarise
from paredown.evaluators.quality import wilson

ACCURACY, PERPLEXITY, MSE = (METRICS[name] for name in ("accuracy", "perplexity", "mse"))


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(15, 20, 0.5313, 0.8881), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_by_the_textbook(successes: int, n: int, low: float, high: float) -> None:
    """The last is Newcombe 1998, table I."""
    assert wilson(successes, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(n=st.integers(1, 2000), share=st.floats(0, 1))
def test_wilson_holds_the_share_and_stays_inside(n: int, share: float) -> None:
    successes = round(share * n)
    low, high = wilson(successes, n)
    assert 0.0 <= low <= successes / n <= high <= 1.0
    assert low < high


def test_accuracy_gets_wilson() -> None:
    split = Split("report", torch.zeros(20, 1))
    measurement = summarise(torch.tensor([1.0] * 15 + [0.0] * 5), ACCURACY, split)
    assert (measurement.value, measurement.n, measurement.split, measurement.unit) == (0.75, 20, "report", "fraction")
    assert (measurement.low, measurement.high) == wilson(15, 20)
    assert measurement.source == "measured"
    assert measurement.samples == ()


def test_an_error_of_zero_everywhere_is_no_share() -> None:
    measurement = summarise(torch.zeros(10), MSE, "search")
    assert (measurement.low, measurement.high) == (0.0, 0.0)


def test_a_callable_of_zeros_and_ones_gets_wilson() -> None:
    hit = metric_from_callable(lambda outputs, targets: outputs[:, 0] > 0, "hit", True)
    measurement = summarise(torch.tensor([1.0, 0.0, 1.0, 1.0]), hit, "search")
    assert (measurement.low, measurement.high) == wilson(3, 4)


def test_a_mean_gets_the_normal_interval() -> None:
    measurement = summarise(torch.tensor([1.0, 2.0, 3.0, 4.0]), MSE, "search", keep_samples=True)
    half = 1.959964 * math.sqrt(5 / 3) / 2
    assert measurement.value == 2.5
    assert (measurement.low, measurement.high) == (pytest.approx(2.5 - half), pytest.approx(2.5 + half))
    assert measurement.samples == (1.0, 2.0, 3.0, 4.0)


def test_perplexity_is_finished_after_the_mean() -> None:
    measurement = summarise(torch.tensor([1.0, 2.0, 3.0, 4.0]), PERPLEXITY, "search")
    half = 1.959964 * math.sqrt(5 / 3) / 2
    assert measurement.value == pytest.approx(math.exp(2.5))
    assert (measurement.low, measurement.high) == (
        pytest.approx(math.exp(2.5 - half)),
        pytest.approx(math.exp(2.5 + half)),
    )


def test_one_score_has_no_interval() -> None:
    measurement = summarise(torch.tensor([2.0]), MSE, "search")
    assert (measurement.value, measurement.low, measurement.high, measurement.n) == (2.0, None, None, 1)


@pytest.mark.parametrize("scores", [torch.zeros(0), torch.zeros(2, 2), torch.tensor(1.0)])
def test_what_are_no_scores_is_refused(scores: torch.Tensor) -> None:
    with pytest.raises(MetricError, match=r"expected scores \(N,\)"):
        summarise(scores, METRICS["cosine"], "search")


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_interval_covers_what_it_says(share: float) -> None:
    """400 samples of 60 answers: 95 % of the intervals hold the truth, give or take 4 standard errors."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        measurement = summarise(torch.from_numpy((rng.random(60) < share).astype(float)), ACCURACY, "search")
        assert measurement.low is not None
        assert measurement.high is not None
        covered += measurement.low <= share <= measurement.high
    assert 0.95 - 4 * math.sqrt(0.95 * 0.05 / 400) <= covered / 400
