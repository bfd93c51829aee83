"""The paired test: exact where it can be, honest where nothing differs."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.evaluators import METRICS, MetricError, paired_test

ACCURACY, PERPLEXITY, MSE = (METRICS[name] for name in ("accuracy", "perplexity", "mse"))


def _answers(a_only: int, b_only: int, both: int) -> tuple[torch.Tensor, torch.Tensor]:
    a = torch.tensor([1.0] * a_only + [0.0] * b_only + [1.0] * both)
    b = torch.tensor([0.0] * a_only + [1.0] * b_only + [1.0] * both)
    return a, b


def test_for_answers_it_is_mcnemars_exact_test() -> None:
    """9 against 2 discordant pairs: P(X >= 9), X ~ Binomial(11, 1/2) = (55 + 11 + 1) / 2048."""
    result = paired_test(*_answers(9, 2, 89), ACCURACY)
    assert result.p_value == pytest.approx(67 / 2048)
    assert result.difference == pytest.approx(0.07)
    assert result.low < 0.07 < result.high


def test_the_same_scores_show_nothing() -> None:
    a, _ = _answers(5, 5, 5)
    result = paired_test(a, a.clone(), ACCURACY)
    assert result == dataclasses.replace(result, difference=0.0, low=0.0, high=0.0, p_value=1.0)


def test_the_side_matters() -> None:
    a, b = _answers(12, 1, 50)
    assert paired_test(a, b, ACCURACY).p_value < 0.01
    assert paired_test(b, a, ACCURACY).p_value > 0.99
    assert paired_test(b, a, ACCURACY).difference == -paired_test(a, b, ACCURACY).difference


def test_less_is_better_where_the_metric_says_so() -> None:
    a, b = torch.tensor([1.0, 1.1, 0.9, 1.2, 1.0, 1.1]), torch.tensor([1.3, 1.2, 1.5, 1.4, 1.2, 1.6])
    better = paired_test(a, b, MSE)
    assert better.p_value == pytest.approx(1 / 64)
    assert better.difference == pytest.approx(float(b.mean() - a.mean()))
    assert better.low > 0
    assert paired_test(b, a, MSE).p_value == 1.0


def test_few_differences_are_counted_exactly() -> None:
    lead = [0.5, -0.2, 0.9, 0.4, -0.1]
    observed = sum(lead)
    flips = [
        sum(s * abs(x) for s, x in zip(signs, lead, strict=True)) for signs in itertools.product((1, -1), repeat=5)
    ]
    expected = sum(total >= observed - 1e-12 for total in flips) / 32
    zeros = [0.0] * 20
    result = paired_test(
        torch.tensor([2.0 + x for x in lead] + zeros), torch.tensor([2.0] * 5 + zeros), METRICS["cosine"]
    )
    assert result.p_value == pytest.approx(expected)


def test_draws_agree_with_the_exact_count() -> None:
    """All 65,536 flips of 16 different sizes, compared with the draws."""
    rng = np.random.default_rng(2)
    lead = rng.normal(0.3, 1.0, 16)
    patterns = 1 - 2 * ((np.arange(2**16)[:, None] >> np.arange(16)) & 1)
    exact = float((patterns @ np.abs(lead) >= lead.sum() - 1e-9).mean())
    drawn = paired_test(torch.from_numpy(lead), torch.zeros(16), METRICS["cosine"]).p_value
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 9999))


def test_it_is_deterministic_and_never_zero() -> None:
    a = torch.linspace(1.0, 2.0, 3000, dtype=torch.float64)
    first, second = (paired_test(a + 1, a * 0.5, METRICS["cosine"]) for _ in range(2))
    assert first == second
    assert first.p_value == 1 / 10_000


def test_perplexity_is_compared_in_its_own_unit() -> None:
    a, b = torch.tensor([1.0, 2.0, 1.5, 1.7]), torch.tensor([1.2, 2.5, 1.6, 1.9])
    result = paired_test(a, b, PERPLEXITY)
    assert result.difference == pytest.approx(math.exp(1.8) - math.exp(1.55))
    assert result.p_value == 1 / 16


def test_a_falling_finish_turns_the_side() -> None:
    """A signal-to-noise ratio of the squared error: the smaller error is the better, and the greater figure."""
    snr = dataclasses.replace(MSE, name="snr", maximise=True, finish=lambda mse: -10 * math.log10(mse))
    a, b = torch.tensor([0.1, 0.2, 0.15, 0.1, 0.12]), torch.tensor([0.2, 0.4, 0.35, 0.25, 0.3])
    result = paired_test(a, b, snr)
    assert result.difference > 0
    assert result.p_value == pytest.approx(1 / 32)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60).map(
        lambda pairs: tuple(torch.tensor(side, dtype=torch.float64) for side in zip(*pairs, strict=True))
    )
)
def test_both_sides_together(sides: tuple[torch.Tensor, ...]) -> None:
    a, b = sides
    one, other = paired_test(a, b, ACCURACY), paired_test(b, a, ACCURACY)
    assert 0 < one.p_value <= 1
    assert one.p_value + other.p_value >= 1 - 1e-9  # the observed one is counted on both sides
    assert one.low <= one.difference <= one.high


def test_where_nothing_is_better_one_in_twenty_is_found() -> None:
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(200):
        a, b = (torch.from_numpy((rng.random(40) < 0.7).astype(float)) for _ in range(2))
        found += paired_test(a, b, ACCURACY).p_value < 0.05
    assert found / 200 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(3), torch.zeros(4), r"got \(3,\) and \(4,\)"),
        (torch.zeros(0), torch.zeros(0), r"got \(0,\)"),
        (torch.zeros(2, 2, 2), torch.zeros(2, 2, 2), r"expected two score tensors \(N,\)"),
        (torch.tensor([torch.nan, 0.0]), torch.zeros(2), "finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(a: torch.Tensor, b: torch.Tensor, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        paired_test(a, b, ACCURACY)
