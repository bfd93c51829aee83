"""Reference outputs that are computed whenever they are read are those that are kept in memory."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from paredown.compressors.anatomy import named_tensors, same_outputs
from paredown.evaluators import METRICS, OutputDistance, ReferenceOutputs, Split, evaluate_split, reference_outputs
from paredown.evaluators.values import RecomputedOutputs, RunningVariance, bounded_batch, output_bytes
from paredown.evaluators.values import _reference as module


class Tied(nn.Module):
    """Token ids (N, T) to logits (N, T, 40), by one weight; and a pooled vector if wanted."""

    def __init__(self, *, pooled: bool = False) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(40, 6), nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 40, bias=False)
        self.head.weight = self.embed.weight
        self.pooled = pooled

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor | dict[str, Tensor]:
        x = self.norm(self.embed(input_ids).transpose(1, 2)).transpose(1, 2)
        logits: Tensor = self.head(x)
        real = attention_mask[..., None].float()
        return {"logits": logits, "pooled": (x * real).sum(1)} if self.pooled else logits


def _split(n: int = 7) -> Split:
    g = torch.Generator().manual_seed(0)
    mask = torch.ones(n, 5, dtype=torch.int64)
    mask[1::2, 3:] = 0
    return Split("search", {"input_ids": torch.randint(0, 40, (n, 5), generator=g), "attention_mask": mask})


def _model(*, pooled: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return Tied(pooled=pooled).eval().requires_grad_(False)


@contextmanager
def _changed(model: nn.Module) -> Iterator[None]:
    """The model with other weights, in the way in which candidates are applied."""
    kept = [(tensor, tensor.data) for tensor in (*model.parameters(), *model.buffers())]
    try:
        for tensor, data in kept:
            tensor.data = data + 1 if data.is_floating_point() else data
        yield
    finally:
        for tensor, data in kept:
            tensor.data = data


@pytest.mark.parametrize("pooled", [False, True])
def test_they_are_the_outputs_of_the_original_whatever_the_model_is_now(pooled: bool) -> None:
    model, split = _model(pooled=pooled), _split()
    kept, again = ReferenceOutputs.compute(model, split, 2), RecomputedOutputs.compute(model, split, 2)
    assert len(again) == len(kept) == 7
    assert again.variance == pytest.approx(kept.variance)
    with _changed(model):
        for start, stop in ((0, 7), (2, 5), (6, 7)):
            mine, theirs = again.between(start, stop), kept.between(start, stop)
            assert same_outputs(mine.outputs, theirs.outputs)
            for name, mask in theirs.real.items():  # what is all real needs no mask
                assert torch.equal(mine.real.get(name, torch.ones_like(mask)), mask)
        assert [len(part) for part in again.take(5).parts()] == [2, 2, 1]
        assert [len(part) for part in kept.take(5).parts()] == [5]
        copy = RecomputedOutputs.compute(model, split, 2)
        assert not same_outputs(copy.between(0, 7).outputs, kept.outputs)  # one that is made too late sees the change


def test_they_travel_with_the_model_and_hold_no_weights_of_their_own() -> None:
    model, split = _model(), _split()
    made = RecomputedOutputs.compute(model, split, 3)
    of_model, of_both = len(pickle.dumps((model, split))), len(pickle.dumps((model, split, made)))
    assert of_both - of_model < 500
    other, _, arrived = pickle.loads(pickle.dumps((model, split, made)))
    assert arrived.model is other
    with _changed(other):
        assert same_outputs(arrived.between(0, 7).outputs, made.between(0, 7).outputs)
    pairs = zip(made._original.parameters(), model.parameters(), strict=True)
    assert all(mine.data_ptr() == theirs.data_ptr() for mine, theirs in pairs)


@pytest.mark.parametrize("kind", ["kl", "mse"])
def test_scores_are_the_same(kind: str) -> None:
    model, split = _model(), _split()
    references = ReferenceOutputs.compute(model, split), RecomputedOutputs.compute(model, split, 2)
    distance = OutputDistance.of_one("kl" if kind == "kl" else "mse", class_axis=-1)
    with _changed(model):
        kept, again = (
            evaluate_split(model, split, METRICS["perplexity"], reference=each, divergence=distance, batch_size=3)
            for each in references
        )
    assert torch.equal(kept.metric, again.metric)
    assert kept.divergence is not None
    assert again.divergence is not None
    assert float(kept.divergence.min()) > 0
    torch.testing.assert_close(kept.divergence, again.divergence)


def test_large_outputs_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model, split = _model(), _split()
    assert isinstance(reference_outputs(model, split, 4), ReferenceOutputs)
    size = output_bytes(split_outputs(model, split))
    assert size == 5 * 40 * 4
    monkeypatch.setattr(module, "KEPT_BYTES", 7 * size)
    assert isinstance(reference_outputs(model, split, 4), ReferenceOutputs)
    monkeypatch.setattr(module, "KEPT_BYTES", 7 * size - 1)
    monkeypatch.setattr(module, "BATCH_BYTES", 2 * size + 1)
    made = reference_outputs(model, split, 4)
    assert isinstance(made, RecomputedOutputs)
    assert made.batch_size == 2
    assert (bounded_batch(256, 100 * size), bounded_batch(1, 1), bounded_batch(8, 0)) == (1, 1, 8)


def split_outputs(model: nn.Module, split: Split) -> Tensor:
    """Outputs of the first sample."""
    outputs = ReferenceOutputs.compute(model, split.take(1)).outputs
    return next(iter(named_tensors(outputs).values()))


def test_a_model_that_holds_a_computed_tensor_is_copied_too() -> None:
    model, split = _model(), _split()
    model.kept = (nn.Parameter(torch.ones(3)) * 2).requires_grad_(True)  # type: ignore[assignment]
    assert not model.kept.is_leaf
    made = RecomputedOutputs.compute(model, split, 3)
    assert same_outputs(made.between(0, 7).outputs, ReferenceOutputs.compute(model, split).outputs)


def test_a_variance_of_parts_is_that_of_all() -> None:
    g = torch.Generator().manual_seed(0)
    values = 1e4 + torch.randn(1000, generator=g)
    found = RunningVariance()
    for part in (values[:1], values[1:1], values[1:700].reshape(3, 233), values[700:]):
        found.add(part)
    assert found.value == pytest.approx(float(values.double().var(correction=0)), rel=1e-9)
