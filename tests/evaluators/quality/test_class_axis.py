"""Class axis: figures equal plain PyTorch wherever the classes lie, and ambiguity is refused by name."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from paredown.compressors import LayerSpec, Variant, collect_gradients, trace_anatomy
from paredown.evaluators import (
    METRICS,
    MetricError,
    ReferenceOutputs,
    Split,
    divergence_per_sample,
    evaluate_split,
    loss_gradients,
    metric_from_callable,
)
from paredown.evaluators.quality import resolve_class_axis
from paredown.evaluators.sensitivity import OutputFrame, fisher_table

ACCURACY, PERPLEXITY = METRICS["accuracy"], METRICS["perplexity"]

LAYOUTS = {  # shape of the outputs -> (class axis, shape of the targets)
    (6, 3, 5, 4): (1, (6, 5, 4)),
    (6, 3, 5): (1, (6, 5)),
    (6, 2, 4, 5, 3): (1, (6, 4, 5, 3)),
    (6, 5, 3): (-1, (6, 5)),
    (6, 5, 4, 3): (-1, (6, 5, 4)),
    (6, 3): (-1, (6,)),
}
SQUARE = {(6, 4, 4): (6, 4), (6, 4, 4, 4): (6, 4, 4)}


def _case(shape: tuple[int, ...], axis: int, wanted: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, outputs of the original, targets."""
    generator = torch.Generator().manual_seed(0)
    reference = 2.0 * torch.randn(shape, generator=generator)
    outputs = reference + torch.randn(shape, generator=generator)
    return outputs, reference, torch.randint(shape[axis], wanted, generator=generator)


def _accuracy(outputs: Tensor, targets: Tensor, axis: int) -> Tensor:
    return (outputs.argmax(axis) == targets).double().reshape(len(outputs), -1).mean(1)


def _kl(outputs: Tensor, reference: Tensor, axis: int) -> Tensor:
    pair = outputs.double().log_softmax(axis), reference.double().log_softmax(axis)
    return functional.kl_div(*pair, log_target=True, reduction="none").sum(axis).reshape(len(outputs), -1).mean(1)


class _Given(nn.Module):
    """A model that returns its inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(("shape", "axis", "wanted"), [(shape, *rest) for shape, rest in LAYOUTS.items()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_figures_equal_plain_pytorch(
    shape: tuple[int, ...], axis: int, wanted: tuple[int, ...], dtype: torch.dtype
) -> None:
    outputs, reference, targets = _case(shape, axis, wanted)
    outputs, reference = outputs.to(dtype), reference.to(dtype)
    assert resolve_class_axis(shape, targets) == axis
    scores = evaluate_split(
        _Given(), Split("report", outputs, targets), ACCURACY,
        reference=ReferenceOutputs.of(reference), divergence="kl", batch_size=4,
    )  # fmt: skip
    assert torch.equal(scores.metric, _accuracy(outputs, targets, axis))
    assert scores.divergence is not None
    torch.testing.assert_close(scores.divergence, _kl(outputs, reference, axis))
    found = divergence_per_sample(outputs, reference, "kl", class_axis=axis)
    torch.testing.assert_close(found, _kl(outputs, reference, axis))
    nll = functional.cross_entropy(outputs.double().movedim(axis, 1), targets, reduction="none").reshape(
        len(outputs), -1
    )
    torch.testing.assert_close(PERPLEXITY.compact(PERPLEXITY.scores(outputs, targets)), nll.mean(1))


@pytest.mark.parametrize(("shape", "wanted"), list(SQUARE.items()))
def test_square_maps_are_refused_until_the_axis_is_named(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    outputs, reference, targets = _case(shape, 1, wanted)
    split, original = Split("report", outputs, targets), ReferenceOutputs.of(reference)
    with pytest.raises(MetricError, match=r"\[quality\] class_axis = 1, or -1 for the last"):
        ACCURACY.scores(outputs, targets)
    own = metric_from_callable(lambda outputs, targets: outputs.flatten(1).mean(1), "own", True)
    with pytest.raises(MetricError, match=r"\[quality\] class_axis"):
        evaluate_split(_Given(), split, own, reference=original, divergence="kl")
    for axis in (1, -1):
        metric = replace(ACCURACY, class_axis=axis)
        scores = evaluate_split(_Given(), split, metric, reference=original, divergence="kl")
        assert torch.equal(scores.metric, _accuracy(outputs, targets, axis))
        assert scores.divergence is not None
        torch.testing.assert_close(scores.divergence, _kl(outputs, reference, axis))


def test_a_language_model_with_as_many_tokens_as_positions_has_its_classes_last() -> None:
    logits, ids = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([[0, 1, 2, 3]] * 3)
    split = Split("report", {"input_ids": ids}, None)
    targets = PERPLEXITY.targets_of(split)
    assert targets is not None
    assert PERPLEXITY.class_axis_of(logits, targets) == -1
    expected = functional.cross_entropy(logits[:, :-1].double().transpose(1, 2), ids[:, 1:], reduction="none").mean(1)
    torch.testing.assert_close(PERPLEXITY.compact(PERPLEXITY.scores(logits, targets)), expected)


@pytest.mark.parametrize(
    ("shape", "targets", "given", "expected"),
    [
        ((2, 5), None, None, -1),
        ((2, 5), torch.zeros(2, 5), None, -1),
        ((2, 5, 7), None, None, -1),
        ((2, 3, 8, 8), None, None, None),
        ((2, 3, 8, 8), torch.zeros(2, 3, 8, 8), None, None),
        ((2, 1, 8, 8), torch.zeros(2, 8, 8), None, 1),
        ((2, 8, 8, 8), torch.zeros(2, 8, 8), None, None),
        ((2, 3, 8, 8), None, 1, 1),
        ((2, 3, 8, 8), None, -3, 1),
        ((2, 3, 8, 8), None, 3, -1),
        ((2, 3, 8, 8), None, 2, 2),
        ((2, 5), None, 1, -1),
    ],
)
def test_the_axis(shape: tuple[int, ...], targets: Tensor | None, given: int | None, expected: int | None) -> None:
    assert resolve_class_axis(shape, targets, given) == expected


@pytest.mark.parametrize("given", [0, 4, -4, -5])
def test_an_axis_that_is_none_of_classes_is_refused(given: int) -> None:
    with pytest.raises(MetricError, match=rf"class_axis = {given} is no axis .* expected 1 to 3, or -1"):
        resolve_class_axis((2, 3, 8, 8), None, given)


def test_what_is_unknown_is_refused_with_the_shapes() -> None:
    outputs = torch.zeros(2, 3, 8, 6)
    own = metric_from_callable(lambda outputs, targets: outputs.flatten(1).mean(1), "own", True)
    for targets, got in ((None, "no targets"), (torch.zeros(2).long(), r"got targets \(2,\)")):
        message = rf"expected targets \(2, 8, 6\) for axis 1 or \(2, 3, 8\) for the last, .*{got}.* class_axis"
        with pytest.raises(MetricError, match=message):
            evaluate_split(
                _Given(), Split("search", outputs, targets), own,
                reference=ReferenceOutputs.of(outputs), divergence="kl",
            )  # fmt: skip
    with pytest.raises(MetricError, match=r"got \(2, 8\); maps with the classes on axis 1 need targets \(2, 8, 6\)"):
        ACCURACY.scores(outputs, torch.zeros(2, 8).long())
    with pytest.raises(MetricError, match=r"targets must be in \[0, 3\), got 0 to 5"):
        ACCURACY.scores(outputs, torch.arange(96).reshape(2, 8, 6) % 6)


@pytest.mark.parametrize("wide", [False, True])
def test_the_frame_is_that_of_the_classes_moved_to_the_end(wide: bool) -> None:
    shape = (8, 40, 3, 2) if wide else (8, 3, 5, 4)
    outputs, other, _ = _case(shape, 1, (8, *shape[2:]))
    first, last = OutputFrame.of(outputs, "kl", class_axis=1), OutputFrame.of(outputs.movedim(1, -1), "kl")
    assert (first.reference == last.reference).all()
    parts = [first.shift(other[start : start + 3], start) for start in (0, 3, 6)]
    assert (torch.cat([torch.from_numpy(part) for part in parts]).numpy() == last.shift(other.movedim(1, -1))).all()


class _Maps(nn.Module):
    """A convolution whose maps have the classes on axis 1, or moved to the end."""

    def __init__(self, *, last: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.last = nn.Conv2d(1, 3, 3, padding=1), last

    def forward(self, x: Tensor) -> Tensor:
        found = self.conv(x)
        return found.movedim(1, -1) if self.last else found


def test_sensitivity_is_the_same_wherever_the_classes_lie() -> None:
    generator = torch.Generator().manual_seed(1)
    x, spec = torch.randn(6, 1, 5, 4, generator=generator), LayerSpec(weight_bits=2)
    targets = torch.randint(3, (6, 5, 4), generator=generator)
    tables, gradients = [], []
    for last in (False, True):
        model = _Maps(last=last).requires_grad_(False)
        split = Split("search", x, targets)
        moved = Variant(spec=spec, effective=model.conv.weight + 0.1, tensors={})
        table = fisher_table(
            model, split, [(("conv",), [LayerSpec(), spec])], lambda fqn, spec, moved=moved: moved,
            class_axis=-1 if last else 1,
        )  # fmt: skip
        tables.append(table.values[0][1])
        found = loss_gradients(model, split, trace_anatomy(model, x), ACCURACY).get("conv")
        assert found is not None
        gradients.append(found.both)
    assert tables[0] == pytest.approx(tables[1], rel=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1])
    model = _Maps(last=False).requires_grad_(False)
    plain = collect_gradients(
        model, ((x[i : i + 1], targets[i : i + 1], 1) for i in range(6)), trace_anatomy(model, x),
        lambda outputs, inputs, targets: functional.cross_entropy(outputs, targets),
    ).get("conv")  # fmt: skip
    assert plain is not None
    torch.testing.assert_close(gradients[0], plain.both)
    with pytest.raises(MetricError, match="no estimate"):
        fisher_table(model, Split("search", x), [(("conv",), [spec])], lambda fqn, spec: moved, class_axis=None)


def test_ignored_targets_of_maps_do_not_count() -> None:
    outputs, _, targets = _case((4, 3, 5, 4), 1, (4, 5, 4))
    targets[:, 2:] = -100
    expected = (outputs[:, :, :2].argmax(1) == targets[:, :2]).double().flatten(1).mean(1)
    torch.testing.assert_close(ACCURACY.compact(ACCURACY.scores(outputs, targets)), expected)
    nll = functional.cross_entropy(outputs[:, :, :2].double(), targets[:, :2], reduction="none").flatten(1).mean(1)
    assert PERPLEXITY.value(PERPLEXITY.scores(outputs, targets)) == pytest.approx(math.exp(float(nll.mean())))
