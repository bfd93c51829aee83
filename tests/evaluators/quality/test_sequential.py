"""The race's test: by hand, and by simulation, for a test whose error rate nobody looked at has none."""

from __future__ import annotations

import copy
import itertools
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from paredown.errors import InputError
from paredown.evaluators import (
    METRICS,
    Metric,
    SequentialTest,
    default_looks,
    divergence_per_sample,
    losses_of,
    metric_from_callable,
    value_of_loss,
)
from paredown.evaluators.quality import critical_value

Floats = NDArray[np.float64]


def _stops(test: SequentialTest, mine: Floats, rival: Floats) -> int | None:
    return next((n for n in test.looks if test.rejects(mine[:n], rival)), None)


def test_looks_double_and_begin_at_32_samples() -> None:
    assert default_looks(512) == (32, 64, 128, 256)
    assert default_looks(4096) == (128, 256, 512, 1024, 2048)
    assert default_looks(33) == (32,)
    assert default_looks(32) == ()


def test_critical_values_are_those_of_the_tables() -> None:
    assert critical_value(0.05, 9) == pytest.approx(1.833, abs=5e-4)
    assert critical_value(0.01, 30) == pytest.approx(2.457, abs=5e-4)


def test_by_hand() -> None:
    """Four of eight samples: differences 1, 1, 2, 0 from a rival that is 1 everywhere; mean 1, deviation 0.816, and
    the error 0.816 * sqrt((1 - 4/8) / 4) = 0.289, so t = 3.46. The critical value for 3 degrees at 0.05 is 2.353."""
    rival, mine = np.ones(8), np.array([2.0, 2.0, 3.0, 1.0])
    assert SequentialTest(looks=(4,), total=8, margin=0.0).rejects(mine, rival)
    assert not SequentialTest(looks=(4,), total=8, margin=0.0, alpha=0.02).rejects(mine, rival)  # 3.482
    assert SequentialTest(looks=(4,), total=8, margin=0.1, alpha=0.02).rejects(mine, rival)  # t = 1.1 / 0.289 = 3.81
    value, low, high = SequentialTest(looks=(4,), total=8).estimate(mine, rival)
    assert value == pytest.approx(2.0)
    assert (low, high) == (pytest.approx(2 - 1.96 * 0.2887, abs=1e-3), pytest.approx(2 + 1.96 * 0.2887, abs=1e-3))


def test_what_the_rival_has_yet_to_pay_is_not_held_against_the_candidate() -> None:
    """The rival loses 8 on the last sample, which was not seen. So its mean is 1.5, and 2 on average so far is less
    far ahead than it looks: 2 - 0.5 - (1.5 - 0.5) = 0.5, with an error of next to nothing."""
    rival = np.array([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1.0, 8.0])
    test = SequentialTest(looks=(6,), total=8, margin=0.0)
    wobble = np.array([1e-3, -1e-3] * 3)
    assert test.rejects(2.0 + wobble, rival)
    assert not test.rejects(1.4 + wobble, rival)  # the mean of all is 1.5


def test_a_candidate_with_no_difference_is_not_stopped() -> None:
    rival = np.linspace(0.1, 2.0, 64)
    test = SequentialTest(looks=(32,), total=64, margin=0.0)
    assert not test.rejects(rival[:32], rival)
    assert test.estimate(rival[:32], rival)[0] == pytest.approx(rival.mean())


def test_the_estimate_stays_between_the_losses() -> None:
    rival = np.array([9.0, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    value, low, high = SequentialTest(looks=(2,), total=8).estimate(np.array([0.5, 0.0]), rival)
    assert (value, low) == (0.0, 0.0)  # 2.25 - 8.75 would be no divergence
    assert high <= 9.0


def test_what_is_not_finite_is_not_rejected() -> None:
    test = SequentialTest(looks=(2,), total=4)
    assert not test.rejects(np.array([np.nan, 1.0]), np.ones(4))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"looks": (4, 2)}, "looks must rise"),
        ({"looks": (8,)}, "to below 8"),
        ({"looks": (1,)}, "at least 2"),
        ({"looks": (4,), "margin": 1.0}, "the margin must be in"),
        ({"looks": (4,), "alpha": 0.0}, "alpha must be in"),
    ],
)
def test_refusals(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        SequentialTest(total=8, **arguments)  # type: ignore[arg-type]


def test_wrong_shapes_and_looks_are_refused() -> None:
    test = SequentialTest(looks=(4,), total=8)
    with pytest.raises(InputError, match="3 samples is none of the looks"):
        test.rejects(np.ones(3), np.ones(8))
    with pytest.raises(InputError, match=r"the rival's \(8,\)"):
        test.rejects(np.ones(4), np.ones(7))


def _lognormal(sigma_mine: float, sigma_rival: float, correlation: float) -> Callable[..., tuple[Floats, Floats]]:
    def draw(rng: np.random.Generator, total: int) -> tuple[Floats, Floats]:
        z, other = rng.standard_normal((2, total))
        w = correlation * z + np.sqrt(1.0 - correlation**2) * other
        return np.exp(sigma_mine * w), np.exp(sigma_rival * z)

    return draw


SHAPES = {
    "light candidate, heavy rival": _lognormal(0.5, 2.0, 0.0),
    "heavy rival, correlated": _lognormal(1.0, 2.0, 0.8),
    "both heavy": _lognormal(2.0, 2.5, 0.95),
    "both light": _lognormal(1.0, 1.0, 0.9),
    "heavy candidate": _lognormal(2.0, 0.5, 0.0),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_error_rate_where_the_hypothesis_just_holds(shape: str) -> None:
    """The mean is exactly (1 - margin) of the rival's: to stop the candidate is wrong. 500 draws; the rate may be 0.05,
    and 0.075 is 2.6 standard errors above that. The plain t test fails the first three by a factor of eight."""
    rng = np.random.default_rng(3)
    test = SequentialTest(looks=default_looks(512), total=512)
    wrong = 0
    for _ in range(500):
        mine, rival = SHAPES[shape](rng, 512)
        mine *= 0.95 * rival.mean() / mine.mean()
        wrong += _stops(test, mine, rival) is not None
    assert wrong / 500 <= 0.075


@pytest.mark.parametrize(("shape", "seen"), [("both light", 0.1), ("light candidate, heavy rival", 0.2)])
def test_power(shape: str, seen: float) -> None:
    """Two and a half times the rival's loss is seen early: the share of samples that a candidate sees, on average."""
    rng = np.random.default_rng(4)
    test = SequentialTest(looks=default_looks(512), total=512)
    samples = []
    for _ in range(200):
        mine, rival = SHAPES[shape](rng, 512)
        mine *= 2.5 * rival.mean() / mine.mean()
        samples.append(_stops(test, mine, rival) or 512)
    assert np.mean(samples) / 512 <= seen


def test_losses_fall_as_the_figure_gets_better() -> None:
    scores = torch.tensor([1.0, 0.0])
    assert losses_of(METRICS["accuracy"], scores).tolist() == [-1.0, 0.0]
    assert value_of_loss(METRICS["accuracy"], -0.5) == 0.5
    assert losses_of(METRICS["perplexity"], scores).tolist() == [1.0, 0.0]
    assert value_of_loss(METRICS["perplexity"], 0.0) == 1.0
    assert losses_of(metric_from_callable(lambda o, t: o, "error", False), scores).tolist() == [1.0, 0.0]
    snr = Metric(name="snr", maximise=True, per_sample=lambda o, t, r: o, finish=lambda mean: -mean)
    assert losses_of(snr, scores).tolist() == [1.0, 0.0]  # a smaller mean is a better figure
    assert value_of_loss(snr, 0.5) == -0.5


@pytest.mark.assets
def test_error_rate_on_a_real_network(repository: Path, assets: Path) -> None:
    """ResNet-20 rounded in three ways, the divergences of 256 images scaled so that the hypothesis just holds, met in
    200 random orders: 0.05 may be wrong, and 0.1 is 3.2 standard errors above that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAREDOWN_ASSETS", str(assets))
        model = runpy.run_path(str(repository / "examples" / "cifar10" / "resnet.py"))["trained_resnet20"]()
        data = runpy.run_path(str(repository / "examples" / "cifar10" / "data.py"))["cifar10_splits"]()
    images = data["search"][0][:256]
    with torch.no_grad():
        reference = model(images)
        losses = [_rounded(model, images, reference, bits) for bits in ((3, 8), (8, 3), (4, 4))]
    test = SequentialTest(looks=default_looks(256), total=256)
    rng = np.random.default_rng(5)
    for mine, rival in itertools.permutations(losses, 2):
        mine = mine * (0.95 * rival.mean() / mine.mean())
        orders = [rng.permutation(256) for _ in range(200)]
        wrong = sum(_stops(test, mine[order], rival[order]) is not None for order in orders)
        assert wrong / 200 <= 0.1


def _rounded(model: torch.nn.Module, images: Tensor, reference: Tensor, bits: tuple[int, int]) -> Floats:
    """(N,) divergences of a copy whose weights are rounded, those of even layers to other bits than those of odd."""
    other = copy.deepcopy(model)
    weights = [parameter for parameter in other.parameters() if parameter.dim() > 1]
    for i, weight in enumerate(weights):
        step = weight.abs().max() / (2 ** (bits[i % 2] - 1) - 1)
        weight.copy_((weight / step).round() * step)
    return divergence_per_sample(other(images), reference).numpy()
