"""Metrics of tokens under masks, in packed sequences, and with targets in either convention."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from paredown.evaluators import METRICS, MetricError, ReferenceOutputs, SequentialTest, Split, evaluate_split, losses_of
from paredown.evaluators.quality import token_targets, value_of_loss

PERPLEXITY, PER_SEQUENCE, ACCURACY = (METRICS[name] for name in ("perplexity", "perplexity_per_sequence", "accuracy"))
G = torch.Generator().manual_seed(0)
LENGTHS, T, V = (3, 8, 5, 2, 8, 6), 8, 11
TEXTS = [torch.randint(1, V, (n,), generator=G) for n in LENGTHS]
TABLE = torch.randn(V, V, generator=G)
"""Logits of the next token by the token before: a model of two tokens, which no padding changes."""


def batch(side: str) -> dict[str, Tensor]:
    ids, mask = torch.zeros(len(TEXTS), T, dtype=torch.long), torch.zeros(len(TEXTS), T, dtype=torch.long)
    for row, text in enumerate(TEXTS):
        at = slice(0, len(text)) if side == "right" else slice(T - len(text), T)
        ids[row, at], mask[row, at] = text, 1
    return {"input_ids": ids, "attention_mask": mask}


def model(inputs: dict[str, Tensor]) -> Tensor:
    return TABLE[inputs.get("decoder_input_ids", inputs.get("input_ids"))]


def nlls() -> list[Tensor]:
    """Of each text alone, without padding."""
    return [functional.cross_entropy(TABLE[t[:-1]].double(), t[1:], reduction="none") for t in TEXTS]


def value(split: Split, name: str = "perplexity") -> float:
    metric = METRICS[name]
    return metric.value(evaluate_split(model, split, metric, batch_size=4).metric)  # type: ignore[arg-type]


TOKENS = math.exp(float(torch.cat(nlls()).mean()))
SEQUENCES = math.exp(float(torch.stack([one.mean() for one in nlls()]).mean()))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("form", ["two axes", "four axes", "additive"])
def test_perplexity_is_that_of_the_texts_alone(side: str, form: str) -> None:
    inputs = batch(side)
    if form != "two axes":
        keep = inputs["attention_mask"].bool()
        whole = (torch.ones(T, T).tril().bool() & keep[:, None])[:, None]
        whole = whole | ~whole.any(-1, keepdim=True)
        low = torch.finfo(torch.float32).min
        inputs["attention_mask"] = whole if form == "four axes" else torch.zeros(whole.shape).masked_fill(~whole, low)
    assert value(Split("report", inputs)) == pytest.approx(TOKENS)
    assert value(Split("report", inputs), "perplexity_per_sequence") == pytest.approx(SEQUENCES)
    assert pytest.approx(SEQUENCES) != TOKENS


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("padded", [-100, 0])
def test_targets_in_either_convention(side: str, padded: int) -> None:
    inputs = batch(side)
    keep = inputs["attention_mask"].bool()
    labels = torch.where(keep, inputs["input_ids"], padded)
    assert value(Split("report", inputs, labels)) == pytest.approx(TOKENS)
    shifted = labels.roll(-1, 1)
    shifted[:, -1] = padded if padded < 0 else -100
    if padded < 0 and side == "left":
        shifted[~keep] = -100
    assert value(Split("report", inputs, shifted)) == pytest.approx(TOKENS)


def test_a_prompt_of_ignored_labels_is_left_out() -> None:
    inputs, rows = batch("right"), torch.arange(T) < 2
    labels = torch.where(inputs["attention_mask"].bool() & ~rows, inputs["input_ids"], -100)
    wanted = math.exp(float(torch.cat([one[1:] for one in nlls()]).mean()))
    assert value(Split("report", inputs, labels)) == pytest.approx(wanted)


def test_targets_of_neither_convention_are_refused_and_then_named() -> None:
    ids = batch("right")["input_ids"]
    tags = torch.randint(V, ids.shape, generator=G)
    split = Split("report", ids, tags)
    with pytest.raises(MetricError, match=r"neither the input ids nor the next ones .* set \[quality\] targets"):
        PERPLEXITY.targets_of(split)
    aligned = dataclasses.replace(PERPLEXITY, targets_from=partial(token_targets, form="aligned"))
    assert torch.equal(aligned.targets_of(split), tags)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["position_ids", "blocks", "numbers"])
def test_the_first_token_of_a_packed_document_is_not_predicted(form: str) -> None:
    texts = TEXTS[:4]
    ids = torch.cat(texts)[None]
    places, number = (
        torch.cat([torch.arange(len(t)) for t in texts]),
        torch.cat([torch.full((len(t),), n + 1) for n, t in enumerate(texts)]),
    )
    inputs = {"input_ids": ids}
    if form == "position_ids":
        inputs["position_ids"] = places[None]
    elif form == "numbers":
        inputs["attention_mask"] = number[None]
    else:
        block = (number[:, None] == number) & torch.ones(len(number), len(number)).tril().bool()
        inputs["attention_mask"] = torch.zeros(1, 1, *block.shape).masked_fill(~block, -math.inf)
    wanted = math.exp(float(torch.cat(nlls()[:4]).mean()))
    assert value(Split("report", inputs)) == pytest.approx(wanted)
    assert value(Split("report", inputs, ids)) == pytest.approx(wanted)


def test_a_decoder_is_judged_by_its_own_tokens() -> None:
    inputs = batch("right")
    decoder = {
        "input_ids": torch.randint(V, (len(TEXTS), 5), generator=G), "attention_mask": torch.ones(len(TEXTS), 5).long(),
        "decoder_input_ids": inputs["input_ids"], "decoder_attention_mask": inputs["attention_mask"],
    }  # fmt: skip
    assert value(Split("report", decoder)) == pytest.approx(TOKENS)
    shifted = inputs["input_ids"].roll(-1, 1)  # as the labels from which transformers makes decoder_input_ids
    shifted[:, -1] = -100
    assert value(Split("report", decoder, shifted)) == pytest.approx(TOKENS)


IDS = torch.randint(V, (3, 6), generator=G)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": IDS, "decoder_inputs_embeds": torch.zeros(3, 6, 2)}, "the model has a decoder"),
        ({"input_ids": IDS, "labels": IDS}, "the inputs hold labels"),
        ({"input_ids": IDS, "target_ids": IDS}, "two texts"),
        ((IDS, IDS), "two texts"),
        ((IDS, (torch.arange(6) < 4).long().expand(3, 6)), r"may be a mask; name it: \[data\] mask = '1'"),
        ({"input_features": torch.zeros(3, 4, 9)}, "needs targets"),
    ],
)
def test_targets_are_not_guessed(inputs: dict[str, Tensor] | tuple[Tensor, ...], message: str) -> None:
    with pytest.raises(MetricError, match=message):
        PERPLEXITY.targets_of(Split("report", inputs))


def test_a_mask_of_ones_own_counts_in_every_metric_of_positions() -> None:
    inputs = batch("left")
    keep = inputs["attention_mask"].bool()
    given = {"input_ids": inputs["input_ids"], "keep": keep}
    outputs, tags = model(inputs), torch.randint(V, keep.shape, generator=G)
    plain = float((outputs.argmax(-1) == tags)[keep].double().mean())
    split = Split("report", given, tags, "keep")
    assert value(split, "accuracy") == pytest.approx(plain)
    wanted = torch.randn(outputs.shape, generator=G)
    error = float((outputs.double() - wanted.double()).square()[keep].mean())
    assert value(Split("report", given, wanted, "keep"), "mse") == pytest.approx(error)
    reference = torch.where(keep[..., None], outputs, 99.0)
    scores = evaluate_split(
        model,
        Split("report", given, None, "keep"),
        METRICS["cosine"],
        reference=ReferenceOutputs.of(reference),  # type: ignore[arg-type]
    )
    assert scores.metric.tolist() == [1.0] * len(TEXTS)


def test_perplexity_over_tokens_races_by_weighted_losses() -> None:
    split = Split("report", batch("right"))
    rows = evaluate_split(model, split, PERPLEXITY).metric  # type: ignore[arg-type]
    losses = losses_of(PERPLEXITY, rows, PERPLEXITY.mean_weight(split))
    assert value_of_loss(PERPLEXITY, float(losses.mean())) == pytest.approx(TOKENS)
    test = SequentialTest(looks=(4,), total=len(TEXTS))
    assert math.exp(test.estimate(losses[:4], losses)[0]) == pytest.approx(TOKENS)


def test_a_figure_says_how_it_comes_from_the_samples() -> None:
    even = Split("report", torch.randint(V, (4, T), generator=G))
    assert PERPLEXITY.kind_of_mean(even) == ""
    assert "tokens or positions" in PERPLEXITY.kind_of_mean(Split("report", batch("right")))
    assert PER_SEQUENCE.kind_of_mean(even) == ""
    assert ACCURACY.kind_of_mean(Split("report", torch.zeros(3, 2), torch.zeros(3).long())) == ""
