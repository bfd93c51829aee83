"""Running a model over a split."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from paredown.errors import InputError
from paredown.evaluators import (
    METRICS,
    Inputs,
    MetricError,
    ReferenceOutputs,
    Split,
    divergence_per_sample,
    evaluate_outputs,
    evaluate_split,
    run_batches,
    run_split,
)


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))


def _split(n: int = 11) -> Split:
    generator = torch.Generator().manual_seed(1)
    return Split("search", torch.randn(n, 6, generator=generator), torch.arange(n) % 4)


@pytest.mark.parametrize("batch_size", [1, 4, 11, 100])
def test_outputs_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    model, split = _model(), _split()
    model.eval()
    expected = model(split.inputs).detach()
    model.train()
    outputs = run_split(model, split, batch_size)
    torch.testing.assert_close(outputs, expected)
    assert not outputs.requires_grad


def test_dicts_tuples_and_logits() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            return {"logits": x - 2 * y}

    x, y = torch.arange(6.0).reshape(3, 2), torch.ones(3, 2)
    for inputs in ((x, y), {"y": y, "x": x}):
        assert torch.equal(run_split(Pair(), Split("search", inputs), 2), x - 2 * y)


def test_half_precision_is_widened() -> None:
    model = nn.Linear(6, 2).to(torch.bfloat16)
    split = Split("search", torch.zeros(3, 6, dtype=torch.bfloat16))
    assert run_split(model, split).dtype == torch.float32


@pytest.mark.parametrize("reduce", [lambda x: x.mean(), lambda x: x.sum(dim=0), lambda x: x[:1]])
def test_an_output_without_the_sample_axis_is_refused(reduce: object) -> None:
    class Reduced(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return reduce(x)  # type: ignore[operator,no-any-return]

    with pytest.raises(InputError, match=r"expected \(4, …\) for a batch of 4 of the search split"):
        run_split(Reduced(), _split(4))


def test_stopping_early_leaves_the_model_alone() -> None:
    model = _model().train()
    batches = run_batches(model, _split(), 2)
    next(batches)
    assert model.training
    assert torch.is_grad_enabled()


def test_any_callable_runs() -> None:
    def double(inputs: Inputs) -> Tensor:
        assert isinstance(inputs, Tensor)
        return inputs * 2

    split = _split()
    assert torch.equal(torch.cat(list(run_batches(double, split, 3))), double(split.inputs))


def test_evaluating_is_scoring_the_outputs() -> None:
    model, split, accuracy = _model(), _split(), METRICS["accuracy"]
    outputs = run_split(model, split)
    reference = ReferenceOutputs.of(
        outputs + 0.1 * torch.randn(outputs.shape, generator=torch.Generator().manual_seed(2))
    )
    for kind in ("kl", "mse"):
        scores = evaluate_split(model, split, accuracy, reference=reference, divergence=kind, batch_size=3)
        assert torch.equal(scores.metric, evaluate_outputs(accuracy, split, outputs))
        expected = divergence_per_sample(outputs, reference.outputs, kind, variance=reference.variance)
        assert scores.divergence is not None
        torch.testing.assert_close(scores.divergence, expected, rtol=1e-5, atol=1e-9)
    assert evaluate_split(model, split, accuracy).divergence is None


def test_the_original_has_no_divergence_and_full_agreement() -> None:
    model, split = _model(), _split()
    reference = ReferenceOutputs.compute(model, split)
    scores = evaluate_split(model, split, METRICS["cosine"], reference=reference, divergence="kl")
    assert scores.divergence is not None
    assert scores.divergence.abs().max() == 0.0
    assert torch.equal(scores.metric, torch.ones(11, dtype=torch.float64))


def test_a_shorter_reference_keeps_its_scale() -> None:
    reference = ReferenceOutputs.of(torch.tensor([[0.0], [2.0], [4.0]]))
    assert reference.variance == pytest.approx(8 / 3)
    assert (len(reference.take(2)), reference.take(2).variance) == (2, reference.variance)


def test_a_missing_or_short_reference_is_refused() -> None:
    model, split, accuracy = _model(), _split(), METRICS["accuracy"]
    with pytest.raises(MetricError, match="hand in its `reference`"):
        evaluate_split(model, split, accuracy, divergence="kl")
    with pytest.raises(MetricError, match="outputs of 5 samples, and the search split has 11"):
        evaluate_split(model, split, accuracy, reference=ReferenceOutputs.compute(model, split.take(5)))
    with pytest.raises(MetricError, match="cosine compares with the outputs of the original model"):
        evaluate_split(model, split, METRICS["cosine"])


def test_missing_targets_are_refused() -> None:
    with pytest.raises(MetricError, match="accuracy needs targets, and the search split has none"):
        evaluate_split(_model(), Split("search", torch.zeros(3, 6)), METRICS["accuracy"])


def test_a_model_that_gives_nan_has_no_score() -> None:
    model = _model()
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    with pytest.raises(MetricError, match="NaN or \\+inf for 11 of 11 samples"):
        evaluate_split(model, _split(), METRICS["accuracy"])


@pytest.mark.cuda
def test_a_model_on_a_gpu_gives_outputs_on_the_cpu() -> None:
    model, split = _model(), _split()
    expected = run_split(model, split)
    outputs = run_split(model.cuda(), split, 4)
    assert outputs.device.type == "cpu"
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-4)
