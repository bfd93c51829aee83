"""What a mask excludes counts in no statistic: padded batches give the figures of the same texts without padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paredown.compressors import CompressedModel, LayerSpec, Repairs, calibrate, compress, reconstruct, trace_anatomy
from paredown.compressors.anatomy import positions
from paredown.compressors.structure import CoupledSet, collect, find, find_blocks, routing_frequency, score_blocks
from paredown.evaluators import Split, loss_gradients
from paredown.evaluators.quality import get_metric

N, REAL, WIDTH, DIM, VOCABULARY = 3, 5, 9, 8, 11


class Reader(nn.Module):
    """Embedding, one masked attention of two heads, a convolution over the sequence and a wide layer."""

    def __init__(self, *, flat: bool = False, convolution: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, DIM)
        self.query, self.key, self.value = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)
        self.out = nn.Linear(DIM, DIM)
        self.conv = nn.Conv1d(DIM, DIM, 3, padding=1) if convolution else None
        self.up, self.down = nn.Linear(DIM, 2 * DIM), nn.Linear(2 * DIM, DIM)
        self.head = nn.Linear(DIM, VOCABULARY)
        self.flat = flat

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        real = positions({"attention_mask": attention_mask})
        assert real is not None
        x = self.embed(input_ids)
        n, t, _ = x.shape
        q, k, v = (layer(x).reshape(n, t, 2, -1).transpose(1, 2) for layer in (self.query, self.key, self.value))
        scores = (q @ k.transpose(2, 3)).masked_fill(~real[:, None, None, :], -1e4).softmax(dim=-1)
        x = x + self.out((scores @ v).transpose(1, 2).reshape(n, t, -1))
        if self.conv is not None:
            x = x * real[:, :, None]
            x = x + self.conv(x.transpose(1, 2)).transpose(1, 2)
        y = x.reshape(n * t, -1) if self.flat else x
        y = y + self.down(torch.relu(self.up(y)))
        return self.head(y).reshape(n, t, -1)


def seeded(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4
    return model.eval().requires_grad_(False)


def texts() -> Tensor:
    return torch.randint(0, VOCABULARY - 1, (N, REAL), generator=torch.Generator().manual_seed(1))


def padded(side: str, kind: str) -> dict[str, Tensor]:
    """The texts, padded with another token than theirs."""
    ids = torch.full((N, WIDTH), VOCABULARY - 1)
    real = torch.zeros(N, WIDTH, dtype=torch.bool)
    at = slice(0, REAL) if side == "right" else slice(WIDTH - REAL, WIDTH)
    ids[:, at], real[:, at] = texts(), True
    both = real[:, None, :] & real[:, :, None]
    masks: dict[str, Tensor] = {
        "2": real.long(),
        "3": both.long(),
        "4": both[:, None],
        "additive": torch.where(both, 0.0, torch.finfo(torch.float32).min)[:, None],
    }
    return {"input_ids": ids, "attention_mask": masks[kind]}


def plain() -> dict[str, Tensor]:
    return {"input_ids": texts(), "attention_mask": torch.ones(N, REAL, dtype=torch.long)}


def statistics(model: nn.Module, inputs: Any, mask: str | None = None) -> dict[str, Tensor]:
    anatomy = trace_anatomy(model, inputs)
    found = calibrate(model, [inputs], anatomy, moments=True, tensors=True, products=True, mask=mask)
    numbers = {f"range {key}": torch.tensor([one.low, one.high, one.n]) for key, one in found.ranges.items()}
    for key, ranges in found.others.items():
        numbers |= {f"{key} {fqn}": torch.tensor([one.low, one.high]) for fqn, one in ranges.items()}
    assert found.moments is not None
    for layer in anatomy.layers:
        if (moments := found.moments.get(layer.fqn)) is not None:
            numbers[f"second {layer.fqn}"] = moments.second
        if (mean := found.moments.mean(layer.fqn)) is not None:
            numbers[f"mean {layer.fqn}"] = mean
    return numbers


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=2e-4, atol=2e-5, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("kind", ["2", "3", "4", "additive"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("shape", [{}, {"flat": True}, {"convolution": True}])
def test_statistics_are_of_the_texts(side: str, kind: str, shape: dict[str, bool]) -> None:
    model = seeded(Reader(**shape))
    without = statistics(model, plain())
    assert_same(statistics(model, padded(side, kind)), without)
    everything = dict(padded(side, "2"))
    everything["attention_mask"] = torch.ones(N, WIDTH, dtype=torch.long)
    assert not torch.allclose(statistics(model, everything)["second up"], without["second up"], rtol=1e-2)


def test_a_mask_in_a_tuple_and_one_of_another_name() -> None:
    class Tupled(Reader):
        def forward(self, input_ids: Tensor, padding: Tensor) -> Tensor:
            return super().forward(input_ids, padding)

    model, given = seeded(Tupled()), padded("left", "2")
    pair = (given["input_ids"], given["attention_mask"])
    wanted = statistics(model, (plain()["input_ids"], plain()["attention_mask"]))
    assert_same(statistics(model, pair, "1"), wanted)
    named = {"input_ids": pair[0], "padding": pair[1]}
    assert_same(statistics(model, named, "padding"), wanted)
    assert not torch.allclose(statistics(model, named)["mean up"], wanted["mean up"], rtol=1e-2)  # nothing is guessed


class Mixture(nn.Module):
    """Two experts of two layers, which get the tokens that a router sends."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.router = nn.Embedding(VOCABULARY, DIM), nn.Linear(DIM, 2)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(DIM, 6), nn.ReLU(), nn.Linear(6, DIM)) for _ in range(2))
        self.head = nn.Linear(DIM, VOCABULARY)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embed(input_ids)
        flat = x.reshape(-1, DIM)
        chosen = self.router(flat).argmax(dim=1)
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero()[:, 0]
            out[rows] = expert(flat[rows])
        return self.head(out.reshape(x.shape))


def test_experts_count_the_real_tokens_that_they_get() -> None:
    model = seeded(Mixture())
    wanted = statistics(model, plain())
    assert {"second experts.0.0", "second experts.1.2"} <= wanted.keys()
    assert_same(statistics(model, padded("left", "2")), wanted)


class TimeFirst(nn.Module):
    """PyTorch's own attention, with the time on axis 0 and True for padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention = nn.Embedding(VOCABULARY, DIM), nn.MultiheadAttention(DIM, 2)
        self.head = nn.Linear(DIM, VOCABULARY)

    def forward(self, input_ids: Tensor, key_padding_mask: Tensor) -> Tensor:
        x = self.embed(input_ids).transpose(0, 1)
        x = x + self.attention(x, x, x, key_padding_mask=key_padding_mask, need_weights=False)[0]
        return self.head(x).transpose(0, 1)


def test_inside_attention_and_with_the_time_first() -> None:
    model = seeded(TimeFirst())
    given = padded("right", "2")
    pair = {"input_ids": given["input_ids"], "key_padding_mask": given["attention_mask"] == 0}
    alone = {"input_ids": texts(), "key_padding_mask": torch.zeros(N, REAL, dtype=torch.bool)}
    wanted = statistics(model, alone)
    assert "second attention.in_proj_weight" in wanted
    assert_same(statistics(model, pair, "key_padding_mask"), wanted)


class Shortened(nn.Module):
    """Speech: two convolutions shorten the sequence fourfold before the linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(1, 6, 4, stride=2), nn.Conv1d(6, 6, 2, stride=2)
        self.head = nn.Linear(6, 5)

    def forward(self, input_values: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(self.second(self.first(input_values[:, None])).transpose(1, 2))


def test_a_convolution_shortens_the_mask() -> None:
    model = seeded(Shortened())
    sound = torch.randn(N, 30, generator=torch.Generator().manual_seed(3))
    long = torch.cat([sound, torch.full((N, 17), 4.0)], dim=1)
    mask = torch.cat([torch.ones(N, 30), torch.zeros(N, 17)], dim=1).long()
    wanted = statistics(model, {"input_values": sound, "attention_mask": mask[:, :30]})
    found = statistics(model, {"input_values": long, "attention_mask": mask})
    assert_same(found, wanted)


def test_a_length_that_no_rule_explains_is_named() -> None:
    class Doubled(Reader):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            x = self.embed(input_ids)
            return self.head(torch.cat([self.up(x.repeat(1, 2, 1))[..., :DIM], x], dim=1)[:, -input_ids.shape[1] :])

    model = seeded(Doubled())
    for inputs, names in ((padded("right", "2"), ("up",)), (plain(), ())):
        anatomy = trace_anatomy(model, inputs)
        found = calibrate(model, [inputs], anatomy)
        assert found.unmasked == names
        assert calibrate(seeded(Reader()), [inputs], trace_anatomy(seeded(Reader()), inputs)).unmasked == ()


class Pair(nn.Module):
    """Encoder–decoder whose two sequences are equally long, with masks of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, DIM)
        self.encoder = nn.Sequential(nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, DIM))
        self.memory, self.query, self.head = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM), nn.Linear(DIM, VOCABULARY)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor, decoder_attention_mask: Tensor
    ) -> Tensor:
        states, x = self.encoder(self.embed(input_ids)), self.embed(decoder_input_ids)
        scores = self.query(x) @ states.transpose(1, 2)
        scores = scores.masked_fill(attention_mask[:, None, :] == 0, -1e4).softmax(dim=-1)
        return self.head(x + scores @ self.memory(states))


@pytest.mark.parametrize("width", [WIDTH, WIDTH + 2])
def test_encoder_and_decoder_have_masks_of_their_own(width: int) -> None:
    model = seeded(Pair())
    given = padded("right", "2")
    target = torch.full((N, width), VOCABULARY - 1)
    target[:, :3] = texts()[:, :3]
    inputs = {
        **given,
        "decoder_input_ids": target,
        "decoder_attention_mask": (torch.arange(width) < 3).long().expand(N, -1).contiguous(),
    }
    alone = {
        **plain(), "decoder_input_ids": target[:, :3], "decoder_attention_mask": torch.ones(N, 3, dtype=torch.long)
    }  # fmt: skip
    assert_same(statistics(model, inputs), statistics(model, alone))


@pytest.mark.parametrize("side", ["right", "left"])
def test_gradients_are_of_the_texts(side: str) -> None:
    model = seeded(Reader())
    anatomy = trace_anatomy(model, plain())
    targets = torch.randint(0, VOCABULARY, (N, REAL), generator=torch.Generator().manual_seed(2))
    given = padded(side, "2")
    wide = torch.zeros(N, WIDTH, dtype=torch.long)
    wide[given["attention_mask"] == 1] = targets.reshape(-1)
    for alone, padding, metric in ((targets, wide, "accuracy"), (None, None, "mse")):
        pair = [
            loss_gradients(model, Split("calibration", inputs, wanted), anatomy, get_metric(metric))
            for inputs, wanted in ((plain(), alone), (given, padding))
        ]
        for layer in anatomy.layers:
            one, other = (found.get(layer.fqn) for found in pair)
            assert one is not None
            assert other is not None
            torch.testing.assert_close(other.both, one.both, rtol=1e-3, atol=1e-7)


def test_scores_of_structure_are_of_the_texts() -> None:
    model = seeded(Reader())
    sets = [coupled for coupled in find(model, plain()).sets if coupled.kind != "heads"]
    assert sets
    one, other = (collect(model, [inputs], sets) for inputs in (plain(), padded("left", "2")))
    for name, evidence in one.items():
        for field in ("taylor", "hessian", "hessian_diag", "activation", "output"):
            torch.testing.assert_close(
                getattr(other[name], field), getattr(evidence, field), rtol=1e-4, atol=1e-8, msg=f"{name} {field}"
            )


def test_frequencies_and_blocks_are_of_the_texts() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(VOCABULARY, DIM), nn.Linear(DIM, VOCABULARY)
            self.blocks = nn.ModuleList(Block() for _ in range(2))

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            x = self.embed(input_ids)
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(DIM, DIM)

        def forward(self, x: Tensor) -> Tensor:
            return x + torch.tanh(self.linear(x))

    model = seeded(Residual())
    blocks, left = find_blocks(model, plain())
    assert len(blocks) == 2, left
    for method in ("change", "divergence"):
        one, other = (score_blocks(model, inputs, blocks, method) for inputs in (plain(), padded("left", "2")))
        torch.testing.assert_close(other, one)
    mixture = seeded(Mixture())
    experts = CoupledSet(name="experts", kind="experts", n_units=2, members=(), router="router", floor=1)
    one, other = (
        routing_frequency(mixture, [inputs], [experts])["experts"] for inputs in (plain(), padded("right", "2"))
    )
    torch.testing.assert_close(other, one)


def test_blocks_are_reconstructed_for_the_texts() -> None:
    model = seeded(Reader())
    spec = LayerSpec(weight_bits=3)
    found = []
    for inputs in (plain(), padded("left", "2")):
        batches = [{name: part[row : row + 1] for name, part in inputs.items()} for row in range(N)]
        anatomy = trace_anatomy(model, inputs)
        resident = CompressedModel(model, anatomy)
        fqns = [layer.fqn for layer in anatomy.layers if layer.kind == "linear"]
        variants = {fqn: compress(resident.weight(fqn), spec, anatomy[fqn]) for fqn in fqns}
        found.append(reconstruct(resident, dict.fromkeys(fqns, spec), variants, batches, steps=20))
    assert [block.kept for block in found[1].blocks] == [block.kept for block in found[0].blocks]
    assert found[1].ratio == pytest.approx(found[0].ratio, rel=1e-3)
    ratios = [torch.tensor([block.ratio for block in one.blocks]) for one in found]
    torch.testing.assert_close(ratios[1], ratios[0], rtol=1e-2, atol=1e-3)


def test_statistics_of_batch_norms_are_of_the_texts() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.up = nn.Embedding(VOCABULARY, DIM), nn.Linear(DIM, DIM)
            self.norm, self.head = nn.BatchNorm1d(DIM), nn.Linear(DIM, VOCABULARY)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return self.head(self.norm(self.up(self.embed(input_ids)).transpose(1, 2)).transpose(1, 2))

    from paredown.compressors.repair._repair import _norms, _statistics

    model = seeded(Normed())
    one, other = (_statistics(model, _norms(model), [inputs], None) for inputs in (plain(), padded("right", "2")))
    torch.testing.assert_close(other["norm."], one["norm."])
    assert Repairs.__init__.__defaults__ == (None,)
