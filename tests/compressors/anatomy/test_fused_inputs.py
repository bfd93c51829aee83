"""Inputs of weights inside a recurrent layer or an attention, compared with the formulas written out."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from paredown.compressors import LayerSpec, applicable, calibrate, compress, trace_anatomy, weight_at
from paredown.compressors.anatomy import attention_projection_inputs, recurrent_inputs


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def recurrent(kind: type[nn.RNNBase], **options: object) -> nn.RNNBase:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return kind(5, 6, **options).eval()


def step(module: nn.RNNBase, end: str, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One step of one sequence, by the formulas of the documentation."""
    weights = [module._parameters[f"{name}_{end}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    entering, hidden = weights[0] @ x + weights[2], weights[1] @ h + weights[3]
    if isinstance(module, nn.GRU):
        (r, z, n), (hr, hz, hn) = entering.chunk(3), hidden.chunk(3)
        r, z = torch.sigmoid(r + hr), torch.sigmoid(z + hz)
        return (1 - z) * torch.tanh(n + r * hn) + z * h, c
    i, f, g, o = (entering + hidden).chunk(4)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def by_hand(module: nn.RNNBase, sequences: list[Tensor], h0: Tensor, c0: Tensor) -> dict[str, list[Tensor]]:
    """Parameter -> the vectors that it is multiplied with, of all steps of all sequences."""
    found: dict[str, list[Tensor]] = {}
    ways = ("", "_reverse") if module.bidirectional else ("",)
    for b, sequence in enumerate(sequences):
        for n in range(module.num_layers):
            sides = []
            for d, way in enumerate(ways):
                h, c = h0[n * len(ways) + d, b], c0[n * len(ways) + d, b]
                out = []
                for x in sequence.flip(0) if way else sequence:
                    found.setdefault(f"weight_ih_l{n}{way}", []).append(x)
                    found.setdefault(f"weight_hh_l{n}{way}", []).append(h)
                    h, c = step(module, f"l{n}{way}", x, h, c)
                    out.append(h)
                sides.append(torch.stack(out[::-1] if way else out))
            sequence = torch.cat(sides, dim=-1)
    return found


def second(rows: Tensor) -> Tensor:
    return rows.T @ rows


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize(("both", "batch_first"), list(itertools.product((False, True), repeat=2)))
@pytest.mark.parametrize("shape", ["batch", "one", "packed"])
@pytest.mark.parametrize("starts", [False, True])
def test_hidden_states_by_hand(kind: type[nn.RNNBase], both: bool, batch_first: bool, shape: str, starts: bool) -> None:
    module = recurrent(kind, num_layers=2, bidirectional=both, batch_first=batch_first)
    lengths = {"batch": (4, 4, 4), "one": (4,), "packed": (3, 5, 1)}[shape]
    sequences = [normal(n, 5, seed=n + i) for i, n in enumerate(lengths)]
    x: Tensor | PackedSequence = (
        torch.stack(sequences, dim=0 if batch_first else 1) if shape == "batch" else sequences[0]
    )
    if shape == "packed":
        x = pack_sequence(sequences, enforce_sorted=False)
    size = (2 * (1 + both), len(lengths), 6)
    h0, c0 = (normal(*size, seed=7 + i) if starts else torch.zeros(size) for i in range(2))
    given = [state[:, 0] if shape == "one" else state for state in (h0, c0)]
    initial = None if not starts else tuple(given) if kind is nn.LSTM else given[0]
    state = torch.get_rng_state()
    with torch.no_grad():
        found = dict(recurrent_inputs(module, x, initial))
        expected = by_hand(module, sequences, h0, c0)
    assert torch.equal(state, torch.get_rng_state())
    assert set(found) == {name for name in expected if not name.startswith("weight_ih_l0")}
    for name, rows in found.items():
        assert len(rows) == sum(lengths)
        assert torch.allclose(second(rows), second(torch.stack(expected[name])), atol=1e-5), name


class Heads(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(2)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return found


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_what_an_attention_gives_to_its_projection_by_hand(bias: bool, masked: bool) -> None:
    attention = Heads(bias=bias).eval().attention
    x = normal(3, 5, 8)
    padding = torch.zeros(3, 5, dtype=torch.bool)
    padding[0, 3:] = masked
    hooks = []
    handle = attention.register_forward_hook(lambda *_: hooks.append(1))
    with torch.no_grad():
        found = attention_projection_inputs(attention, (x, x, x), {"key_padding_mask": padding, "need_weights": False})
        parts = nn.functional.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (part.reshape(3, 5, 2, 4).transpose(1, 2) for part in parts)
        scores = (q @ k.transpose(2, 3) / 2.0).masked_fill(padding[:, None, None], -torch.inf)
        expected = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(3, 5, 8)
    handle.remove()
    assert torch.allclose(found, expected, atol=1e-5)
    assert not hooks
    assert "identity" not in vars(attention)


class Speaker(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.lstm = nn.LSTM(8, 16, num_layers=2, batch_first=True)
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.lstm(x)[0]
        found: Tensor = self.attention(y, y, y, need_weights=False)[0]
        return found


@pytest.mark.parametrize("fqn", ["lstm.weight_hh_l0", "lstm.weight_ih_l1", "lstm.weight_hh_l1", "attention.out_proj"])
@pytest.mark.parametrize("method", ["gptq", "descent"])
def test_methods_that_look_at_inputs_err_less_there(fqn: str, method: str) -> None:
    """In the metric that they minimise, tr(D H D'), with H of other samples than those that they saw."""
    model = Speaker().eval()
    anatomy = trace_anatomy(model, normal(2, 12, 8))
    seen, unseen = (calibrate(model, [normal(64, 12, 8, seed=seed)], anatomy, moments=True).moments for seed in (0, 1))
    assert seen is not None
    assert unseen is not None
    moments, judge = seen.get(fqn), unseen.get(fqn)
    assert moments is not None
    assert judge is not None
    weight = weight_at(model, fqn).detach()
    lost = []
    for spec in (LayerSpec(weight_bits=3), LayerSpec(weight_bits=3, weight_method=method)):
        assert applicable(spec, anatomy[fqn]) is None
        apart = compress(weight, spec, anatomy[fqn], moments=moments).effective - weight
        lost.append(float((apart @ judge.second[0] * apart).sum()))
    assert lost[1] < 0.8 * lost[0]


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_the_projection_of_states_is_refused_by_name() -> None:
    model = nn.LSTM(5, 6, proj_size=3).eval()
    anatomy = trace_anatomy(model, normal(4, 2, 5))
    spec = LayerSpec(weight_bits=4, weight_method="gptq")
    reason = applicable(spec, anatomy["weight_hr_l0"])
    assert reason is not None
    assert "'gptq' looks at the layer's inputs" in reason
    assert applicable(spec, anatomy["weight_hh_l0"]) is None


def test_a_weight_that_is_parametrized_is_taken_as_it_is_computed() -> None:
    plain, normed = (recurrent(nn.LSTM, num_layers=2) for _ in range(2))
    nn.utils.parametrizations.weight_norm(normed, "weight_hh_l0")
    with torch.no_grad():
        found, expected = (dict(recurrent_inputs(module, normal(4, 3, 5), None)) for module in (normed, plain))
    for name, rows in expected.items():
        assert torch.allclose(found[name], rows, atol=1e-6)
