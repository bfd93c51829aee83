"""What a mask excludes counts in no distance: padded batches give the figures of the same texts without padding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from paredown.compressors import LayerSpec, trace_anatomy
from paredown.compressors.anatomy import NamedOutputs, output_masks, outputs_of
from paredown.evaluators import MetricError, OutputDistance, ReferenceOutputs, Split, evaluate_split
from paredown.evaluators.quality import divergence_per_sample, get_metric
from paredown.evaluators.sensitivity import OutputFrame, fisher_table
from paredown.evaluators.values import RecomputedOutputs

N, REAL, WIDTH, CLASSES = 4, 5, 8, 6


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def mask(side: str) -> Tensor:
    real = torch.zeros(N, WIDTH, dtype=torch.long)
    real[:, slice(0, REAL) if side == "right" else slice(WIDTH - REAL, WIDTH)] = 1
    return real


def widened(tensor: Tensor, side: str, axis: int = 1) -> Tensor:
    """The tensor with large numbers at padded positions."""
    rest = list(tensor.shape)
    rest[axis] = WIDTH - REAL
    padding = 50.0 + 9.0 * numbers(*rest, seed=9)
    return torch.cat([tensor, padding] if side == "right" else [padding, tensor], dim=axis)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", ["kl", "mse"])
@pytest.mark.parametrize("axis", [1, -1])
def test_a_distance_is_of_the_real_positions(side: str, kind: str, axis: int) -> None:
    original, other = numbers(N, REAL, CLASSES), numbers(N, REAL, CLASSES, seed=1)
    positions_on = 2 if axis == 1 else 1
    pair = [part.movedim(-1, axis) for part in (original, other)]
    wide = [widened(part, side, positions_on) for part in pair]
    wide[1] = wide[1] + (mask(side) == 0).reshape(N, *((1, WIDTH) if axis == 1 else (WIDTH, 1))) * numbers(1).exp()
    distance = OutputDistance.of_one(kind, class_axis=axis)  # type: ignore[arg-type]
    real = output_masks(wide[0], {"attention_mask": mask(side)})
    found = distance.per_sample(wide[1], ReferenceOutputs.of(wide[0], real))
    torch.testing.assert_close(found, distance.per_sample(pair[1], ReferenceOutputs.of(pair[0])))
    wild = distance.per_sample(wide[1], ReferenceOutputs.of(wide[0]))
    assert not torch.allclose(found, wild, rtol=1e-2)
    draws = [
        distance.drawn(outputs, torch.Generator().manual_seed(4), 2.0, masks)
        for outputs, masks in ((wide[0], real), (pair[0], {}))
    ]
    torch.testing.assert_close(*draws)
    frames = [
        OutputFrame.of(outputs, kind, variance=2.0, most=40, class_axis=axis, real=masks.get(""))  # type: ignore[arg-type]
        for outputs, masks in ((wide[0], real), (pair[0], {}))
    ]
    torch.testing.assert_close(*(torch.from_numpy(frame.reference) for frame in frames))
    shifts = [frame.shift(outputs) for frame, outputs in zip(frames, (wide[1], pair[1]), strict=True)]
    torch.testing.assert_close(*map(torch.from_numpy, shifts))


def test_samples_of_different_lengths_are_means_of_their_own() -> None:
    real = torch.arange(WIDTH)[None] < torch.tensor([1, 3, WIDTH, 5])[:, None]
    original, other = numbers(N, WIDTH, CLASSES), numbers(N, WIDTH, CLASSES, seed=1)
    masks = output_masks(original, {"attention_mask": real})
    found = OutputDistance.of_one("kl").per_sample(other, ReferenceOutputs.of(original, masks))
    for row, length in enumerate((1, 3, WIDTH, 5)):
        p, q = (part[row, :length].double().log_softmax(-1) for part in (original, other))
        assert float(found[row]) == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), abs=1e-12)


def test_of_several_outputs_only_those_with_positions_are_cut() -> None:
    def outputs(seed: int, side: str | None) -> NamedOutputs:
        logits, pooled = numbers(N, REAL, CLASSES, seed=seed), numbers(N, WIDTH, seed=seed + 10)
        named = outputs_of({"logits": logits if side is None else widened(logits, side), "pooled": pooled})
        assert isinstance(named, NamedOutputs)
        return named

    alone = [outputs(seed, None) for seed in (0, 1)]
    weights = {"logits": 1.0, "pooled": 3.0}
    for side in ("right", "left"):
        wide = [outputs(seed, side) for seed in (0, 1)]
        real = output_masks(wide[0], {"attention_mask": mask(side)})
        assert list(real) == ["logits"]  # as many features as positions do not make positions
        wanted = OutputDistance.of_several(alone[0], "mse", weights)
        distance = OutputDistance.of_several(wide[0], "mse", weights, real=real)
        assert distance == wanted
        reference = ReferenceOutputs.of(wide[0], real)
        torch.testing.assert_close(
            distance.per_sample(wide[1], reference), wanted.per_sample(alone[1], ReferenceOutputs.of(alone[0]))
        )
        frame = OutputFrame.of(distance.in_frame(wide[0]), "mse", most=999, real=distance.mask_in_frame(reference))
        assert len(frame.sites) == N * (REAL * CLASSES + WIDTH)


def test_the_span_of_an_answer_is_among_real_positions() -> None:
    original, other = numbers(N, REAL), numbers(N, REAL, seed=1)
    real = mask("left").bool()
    masks = output_masks(
        outputs_of({"start_logits": widened(original, "left"), "x": original}), {"attention_mask": real}
    )
    found = divergence_per_sample(widened(other, "left"), widened(original, "left"), "kl", real=masks["start_logits"])
    torch.testing.assert_close(found, divergence_per_sample(other, original, "kl"))


def test_as_many_classes_as_positions() -> None:
    original, other = numbers(N, CLASSES, REAL), numbers(N, CLASSES, REAL, seed=1)
    real = torch.ones(N, REAL, dtype=torch.long)
    real[:, -2:] = 0
    square = original[:, :REAL], other[:, :REAL]  # (N, C, T) with C = T
    masks = output_masks(square[0], {"attention_mask": real})
    found = divergence_per_sample(square[1], square[0], "kl", class_axis=1, real=masks[""])
    wanted = divergence_per_sample(square[1][..., :-2], square[0][..., :-2], "kl", class_axis=1)
    torch.testing.assert_close(found, wanted)


class Tagger(nn.Module):
    """Layers that look at one position at a time, so that padding can only count by mistake."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.head = nn.Embedding(9, 7), nn.Linear(7, 12), nn.Linear(12, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(torch.tanh(self.up(self.embed(input_ids))))


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_split_and_an_estimate_know_the_mask(side: str) -> None:
    torch.manual_seed(0)
    model, changed = Tagger().eval(), Tagger().eval()
    ids = torch.randint(0, 8, (N, REAL))
    wide = torch.full((N, WIDTH), 8)
    wide[mask(side) == 1] = ids.reshape(-1)
    alone = Split("search", {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    padding = Split("search", {"input_ids": wide, "attention_mask": mask(side)})
    found = []
    for split in (alone, padding):
        reference = ReferenceOutputs.compute(model, split)
        scores = evaluate_split(
            changed, split, get_metric("cosine"), reference=reference, divergence="mse", batch_size=3
        )
        assert scores.divergence is not None
        found.append((scores.divergence, reference.variance))
        assert reference.take(2).real.keys() == reference.real.keys()
    torch.testing.assert_close(found[1][0], found[0][0])
    assert found[1][1] == pytest.approx(found[0][1])
    anatomy = trace_anatomy(model, alone.inputs)
    levels = [LayerSpec(), LayerSpec(weight_bits=2)]

    def variant(fqn: str, spec: LayerSpec) -> object:
        from paredown.compressors import compress, weight_at

        return compress(weight_at(model, fqn), spec, anatomy[fqn])

    tables = [
        fisher_table(
            model,
            split,
            [([fqn], levels) for fqn in ("up", "head")],
            variant,
            batch_size=N,  # type: ignore[arg-type]
        ).values
        for split in (alone, padding)
    ]
    torch.testing.assert_close(torch.tensor(tables[1]), torch.tensor(tables[0]))


class Speech(nn.Module):
    """Sounds (N, T) to logits of T // 2 frames, as models of transformers that say how their masks are shortened."""

    def __init__(self, *, says: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(1, 5, 2, stride=2)
        if says:
            self._get_feature_vector_attention_mask = lambda n, mask: mask[:, ::2][:, :n]

    def forward(self, sounds: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.conv(sounds[:, None]).transpose(1, 2)
        return logits


def test_padded_frames_say_nothing() -> None:
    """The word error rate of padded sounds is that of each sound alone."""
    g, model = torch.Generator().manual_seed(1), Speech(says=True).eval()
    sounds, mask = 3 * torch.randn(4, 24, generator=g), torch.ones(4, 24, dtype=torch.int64)
    lengths = (24, 16, 10, 6)
    for row, length in enumerate(lengths):
        mask[row, length:] = 0
    targets = torch.randint(1, 5, (4, 6), generator=g)
    metric = get_metric("wer")
    padded = Split("search", {"sounds": sounds, "attention_mask": mask}, targets)
    rows = [
        evaluate_split(
            model, Split("search", {"sounds": sounds[n : n + 1, :length], "attention_mask": mask[n : n + 1, :length]},
                         targets[n : n + 1]), metric,
        ).metric
        for n, length in enumerate(lengths)
    ]  # fmt: skip
    kept = ReferenceOutputs.compute(model, padded)
    for reference in (kept, RecomputedOutputs.compute(model, padded, 3)):
        found = evaluate_split(model, padded, metric, reference=reference, batch_size=3)
        assert metric.value(found.metric) == metric.value(metric.compact(torch.cat(rows)))
    blind = Speech(says=False).eval()
    with pytest.raises(MetricError, match=r"the mask has 24 positions and the outputs \(4, 12, 5\) have other ones"):
        evaluate_split(blind, padded, metric, reference=ReferenceOutputs.compute(blind, padded))
    with pytest.raises(MetricError, match="hidden frames cannot be told"):
        evaluate_split(model, padded, metric)
    tokens = torch.tensor([[1, 2, 3, 4]])
    counted = torch.tensor([[True, True, False, False]])
    assert metric.value(metric.scores(tokens, torch.tensor([[1, 2]]), None, counted)) == 0.0
