"""The contract suites accept what is ours, and reject a double for each promise that it breaks."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from paredown.evaluators import (
    METRICS,
    Metric,
    MetricError,
    ReferenceOutputs,
    Split,
    evaluate_split,
    metric_from_callable,
    run_split,
    summarise,
)
from paredown.testing._evaluators import check_evaluator, check_metric

LOGITS = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0], [1.0, 0.0, 0.5], [0.0, 0.2, 0.1]])
CLASSES = torch.tensor([0, 1, 2, 1])
TOKEN_LOGITS = torch.stack([LOGITS, LOGITS.flip(0), LOGITS * 2])
TOKENS = torch.stack([CLASSES, CLASSES.flip(0), torch.tensor([0, 1, -100, 1])])
TEN = torch.eye(4, 20) + torch.arange(20.0) / 100

CASES: dict[str, tuple[Tensor, Tensor | None, Tensor | None, Tensor]] = {
    "accuracy": (LOGITS, CLASSES, None, -LOGITS),
    "perplexity": (TOKEN_LOGITS, TOKENS, None, -TOKEN_LOGITS),
    "mse": (LOGITS, LOGITS + torch.arange(4.0)[:, None], None, LOGITS - 9.0),
    "perplexity_per_sequence": (TOKEN_LOGITS, TOKENS, None, -TOKEN_LOGITS),
    "mean_iou": (TOKEN_LOGITS, TOKENS, None, -TOKEN_LOGITS),
    "f1": (LOGITS, CLASSES, None, -LOGITS),
    "f1_micro": (LOGITS, CLASSES, None, -LOGITS),
    "average_precision": (LOGITS, CLASSES, None, -LOGITS),
    "psnr": (LOGITS, LOGITS + torch.arange(1.0, 5.0)[:, None], None, LOGITS - 9.0),
    "spearman": (LOGITS[:, 0], torch.tensor([4.0, 1.0, 2.0, 1.5]), None, -LOGITS[:, 0]),
    "wer": (TOKEN_LOGITS, torch.tensor([[1, 2], [1, -100], [1, 1]]), None, -TOKEN_LOGITS),
    "hit_rate_at_10": (TEN, torch.arange(4), None, -TEN),
    "ndcg_at_10": (TEN, torch.arange(4), None, -TEN),
    "cosine": (LOGITS, None, LOGITS + torch.eye(4, 3), -LOGITS),
}


def test_every_metric_has_a_case() -> None:
    assert set(METRICS) == set(CASES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_metrics_keep_the_contract(name: str) -> None:
    outputs, targets, reference, worse = CASES[name]
    check_metric(METRICS[name], outputs, targets, reference=reference, worse=worse)


def test_accuracy_of_positions_keeps_the_contract() -> None:
    check_metric(METRICS["accuracy"], TOKEN_LOGITS, TOKENS, worse=-TOKEN_LOGITS)


def _metric(per_sample: Callable[[Tensor, Tensor | None], Tensor], *, maximise: bool = True) -> Metric:
    return metric_from_callable(per_sample, "double", maximise)


def _changes_its_outputs(outputs: Tensor, targets: Tensor | None) -> Tensor:
    return outputs.mul_(2.0).sum(dim=1)


def _forgives_nan(outputs: Tensor, targets: Tensor | None) -> Tensor:
    return outputs.nan_to_num().sum(dim=1)


BROKEN_METRICS: dict[str, tuple[Metric, str]] = {
    "a scalar": (_metric(lambda outputs, targets: outputs.mean()), r"shape \(4,\), got \(\)"),
    "a column": (_metric(lambda outputs, targets: outputs[:, :1]), r"shape \(4,\), got \(4, 1\)"),
    "a float": (_metric(lambda outputs, targets: 0.5), "got float"),  # type: ignore[arg-type,return-value]
    "NaN": (_metric(lambda outputs, targets: outputs.sum(dim=1).log()), "must be finite"),
    "normalised over the batch": (
        _metric(lambda outputs, targets: outputs.sum(dim=1) / outputs.sum()),
        "must not depend on the other samples",
    ),
    "random": (_metric(lambda outputs, targets: torch.rand(len(outputs))), "another score the second time"),
    "changes its outputs": (_metric(_changes_its_outputs), "changed its outputs"),
    "the wrong direction": (_metric(lambda outputs, targets: outputs[:, 0], maximise=False), "check `maximise`"),
    "finish goes up and down": (
        dataclasses.replace(_metric(lambda outputs, targets: outputs[:, 0]), finish=lambda mean: (mean - 1) ** 2),
        "monotone",
    ),
}


@pytest.mark.parametrize("name", BROKEN_METRICS)
def test_a_broken_metric_is_rejected(name: str) -> None:
    metric, message = BROKEN_METRICS[name]
    outputs = LOGITS.clone()
    if name == "NaN":
        outputs[1] = -5.0
    with pytest.raises((AssertionError, MetricError), match=message):
        check_metric(metric, outputs, CLASSES, worse=-LOGITS)


def test_a_metric_that_hides_nan_is_rejected() -> None:
    class Forgiving(Metric):
        def scores(self, outputs: Tensor, targets: Tensor | None, reference: Tensor | None = None) -> Tensor:
            return _forgives_nan(outputs, targets).double()

    forgiving = Forgiving(name="double", maximise=True, per_sample=lambda outputs, targets, reference: outputs[:, 0])
    with pytest.raises(AssertionError, match="NaN"):
        check_metric(forgiving, LOGITS, CLASSES)


def test_run_split_keeps_the_contract() -> None:
    check_evaluator(lambda model, split: run_split(model, split, 5))


def test_evaluate_split_keeps_the_contract() -> None:
    def evaluate(model: nn.Module, split: Split) -> Tensor:
        reference = ReferenceOutputs.compute(model, split)
        scores = evaluate_split(model, split, METRICS["accuracy"], reference=reference, divergence="kl", batch_size=5)
        assert scores.divergence is not None
        return torch.stack([scores.metric, scores.divergence])

    check_evaluator(evaluate)


def test_a_measurement_keeps_the_contract() -> None:
    accuracy = METRICS["accuracy"]
    check_evaluator(lambda model, split: summarise(evaluate_split(model, split, accuracy).metric, accuracy, split))


def _leaves_eval_mode(model: nn.Module, split: Split) -> Tensor:
    model.eval()
    with torch.no_grad():
        return _call(model, split)


def _leaves_eval_mode_after_an_error(model: nn.Module, split: Split) -> Tensor:
    modes = [(module, module.training) for module in model.modules()]
    outputs = _leaves_eval_mode(model, split)
    for module, training in modes:
        module.training = training
    return outputs


def _thaws_a_frozen_part(model: nn.Module, split: Split) -> Tensor:
    try:
        return _leaves_eval_mode(model, split)
    finally:
        model.train()


def _runs_in_train_mode(model: nn.Module, split: Split) -> Tensor:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        return _call(model, split)


def _leaves_gradients_off(model: nn.Module, split: Split) -> Tensor:
    outputs = run_split(model, split)
    torch.set_grad_enabled(False)
    return outputs


def _draws_from_torch(model: nn.Module, split: Split) -> Tensor:
    torch.rand(1)
    return run_split(model, split)


def _draws_from_numpy(model: nn.Module, split: Split) -> Tensor:
    np.random.rand()  # noqa: NPY002 (the very thing that must be noticed)
    return run_split(model, split)


def _draws_from_python(model: nn.Module, split: Split) -> Tensor:
    random.random()
    return run_split(model, split)


def _leaves_a_hook(model: nn.Module, split: Split) -> Tensor:
    model.register_forward_hook(lambda *_: None)
    return run_split(model, split)


def _rounds_a_weight(model: nn.Module, split: Split) -> Tensor:
    outputs = run_split(model, split)
    with torch.no_grad():
        next(model.parameters()).round_()
    return outputs


def _replaces_a_parameter(model: nn.Module, split: Split) -> Tensor:
    outputs = run_split(model, split)
    first = model.get_submodule("first")
    assert isinstance(first, nn.Linear)
    first.weight = nn.Parameter(first.weight.detach().clone())
    return outputs


def _scales_the_inputs(model: nn.Module, split: Split) -> Tensor:
    outputs = run_split(model, split)
    assert isinstance(split.inputs, Tensor)
    split.inputs.mul_(0.5)
    return outputs


def _is_noisy(model: nn.Module, split: Split) -> Tensor:
    return run_split(model, split) + torch.rand(
        1, generator=torch.Generator().manual_seed(random.SystemRandom().getrandbits(32))
    )


def _swallows_errors(model: nn.Module, split: Split) -> Tensor:
    try:
        return run_split(model, split)
    except RuntimeError:
        return torch.zeros(len(split))


def _call(model: nn.Module, split: Split) -> Tensor:
    outputs = model(split.inputs)
    assert isinstance(outputs, Tensor)
    return outputs.detach()


BROKEN_EVALUATORS: list[tuple[Callable[[nn.Module, Split], Tensor], str]] = [
    (_leaves_eval_mode, "train mode of model was True"),
    (_leaves_eval_mode_after_an_error, "train mode of .* after the model raised"),
    (_thaws_a_frozen_part, "train mode of frozen was False"),
    (_runs_in_train_mode, "norm.running_mean has another value"),
    (_leaves_gradients_off, "the grad mode was True and is False"),
    (_draws_from_torch, "torch's random state"),
    (_draws_from_numpy, "numpy's random state"),
    (_draws_from_python, "Python's random state"),
    (_leaves_a_hook, "a hook was left"),
    (_rounds_a_weight, "first.weight has another value"),
    (_replaces_a_parameter, "first.weight is another tensor object"),
    (_scales_the_inputs, "the split's tensors were changed"),
    (_is_noisy, "the same model on the same split gave"),
    (_swallows_errors, "the evaluator returned a result"),
]


@pytest.mark.parametrize(("evaluate", "message"), BROKEN_EVALUATORS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_evaluator_is_rejected(evaluate: Callable[[nn.Module, Split], Tensor], message: str) -> None:
    grad = torch.is_grad_enabled()
    with pytest.raises(AssertionError, match=message):
        check_evaluator(evaluate)
    assert torch.is_grad_enabled() == grad
