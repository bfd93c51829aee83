"""A frame keeps where outputs are pushed to, whole or in parts, and what it leaves out it lumps together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from paredown.evaluators import divergence_per_sample
from paredown.evaluators.sensitivity import OutputFrame


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    outputs = 3.0 * torch.randn(12, 5, generator=generator)
    return outputs, outputs + 0.2 * torch.randn(12, 5, generator=generator)


def _divergence(frame: OutputFrame, shift: np.ndarray) -> float:
    moved = frame.reference + shift.reshape(frame.reference.shape)
    log_q = moved - np.log(np.exp(moved).sum(axis=1, keepdims=True))
    return float((np.exp(frame.reference) * (frame.reference - log_q)).sum(axis=1).mean())


def test_of_a_few_classes_nothing_is_left_out(pair: tuple[Tensor, Tensor]) -> None:
    frame = OutputFrame.of(pair[0], "kl")
    assert frame.reference.shape == (12, 5)
    assert frame.classes is None
    expected = float(divergence_per_sample(pair[1], pair[0]).mean())
    assert _divergence(frame, frame.shift(pair[1])) == pytest.approx(expected, rel=1e-4)
    assert np.abs(frame.shift(pair[0])).max() < 1e-6


def test_batches_give_what_the_whole_gives(pair: tuple[Tensor, Tensor]) -> None:
    for kind, most in (("kl", 1024), ("kl", 30), ("mse", 1024), ("mse", 17)):
        frame = OutputFrame.of(pair[0], kind, most=most, variance=4.0)  # type: ignore[arg-type]
        parts = [frame.shift(pair[1][start : start + 5], start) for start in (0, 5, 10)]
        assert np.array_equal(np.concatenate(parts), frame.shift(pair[1]))
        assert frame.reference.size <= most


def test_of_many_classes_the_unlikely_ones_are_lumped_together() -> None:
    generator = torch.Generator().manual_seed(1)
    outputs = 2.0 * torch.randn(3, 4, 100, generator=generator)  # (samples, positions, classes)
    other = outputs + 0.1 * torch.randn(3, 4, 100, generator=generator)
    frame = OutputFrame.of(outputs, "kl")
    assert frame.reference.shape == (12, 16)
    assert np.allclose(np.exp(frame.reference).sum(axis=1), 1.0, atol=1e-5)
    whole = float(divergence_per_sample(other, outputs).mean())
    assert 0.0 < _divergence(frame, frame.shift(other)) <= whole  # lumping can only hide some of it
    assert frame.classes is not None
    likeliest = outputs.reshape(12, 100).topk(15, dim=1).indices.sort().values
    assert torch.equal(torch.from_numpy(frame.classes).sort().values, likeliest)


def test_squared_errors_are_told_in_standard_deviations() -> None:
    outputs = torch.tensor([[1.0, 3.0], [5.0, 7.0]])
    frame = OutputFrame.of(outputs, "mse", variance=4.0)
    assert frame.reference[:, 0].tolist() == [0.5, 1.5, 2.5, 3.5]
    assert frame.shift(outputs + 1.0).tolist() == [0.5] * 4


def test_an_impossible_class_is_no_infinity() -> None:
    outputs = torch.tensor([[0.0, 1.0, -torch.inf]])
    frame = OutputFrame.of(outputs, "kl")
    assert np.isfinite(frame.reference).all()
    assert np.isfinite(frame.shift(outputs)).all()
