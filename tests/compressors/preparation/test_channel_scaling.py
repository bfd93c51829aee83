"""Channels rescaled between layers: the function stays, the ranges become alike, and what is unsafe is left alone."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from paredown.compressors import calibrate, find_equalizable_pairs, scale_channels, trace_anatomy
from paredown.errors import ConfigError
from paredown.testing import AWKWARD


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(torch.logspace(-1.5, 1.5, len(parameter)).reshape(-1, *[1] * (parameter.dim() - 1)))
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    buffer.add_(0.3)
        return model


class Plain(nn.Module):
    """Convolutions, a depthwise one and pooling between them, then a flattened image into linear layers; no norms."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=8, bias=False)
        self.c, self.d, self.e = nn.Conv2d(8, 6, 1), nn.Linear(6 * 9, 10), nn.Linear(10, 4)

    def forward(self, x):
        x = functional.relu(self.b(functional.relu(self.a(x))))
        x = functional.max_pool2d(functional.pad(self.c(x), (1, 1, 1, 1)), 3)
        return self.e(functional.leaky_relu(self.d(x.flatten(1))))


class Normed(nn.Module):
    """A residual net of norms, whose trunk cannot be scaled, but the inside of its block."""

    def __init__(self):
        super().__init__()
        self.a, self.n = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.b, self.m = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.c, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x):
        x = functional.relu(self.n(self.a(x)))
        x = x + self.c(functional.relu(self.m(self.b(x))))
        return self.head(x.mean((2, 3)))


class Gated(nn.Module):
    """Norm by hand, two layers behind it, a gate, and a product."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(12))
        self.up, self.gate, self.down = nn.Linear(12, 20), nn.Linear(12, 20), nn.Linear(20, 12)
        self.norm, self.out = nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, x):
        y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.gain
        return self.out(self.norm(x + self.down(functional.silu(self.gate(y)) * self.up(y))))


CASES = {
    "plain": (Plain, (4, 3, 9, 9), {"a.weight", "b.weight", "c.weight", "d.weight"}),
    "normed": (Normed, (4, 3, 9, 9), {"m.weight"}),
    "gated": (Gated, (4, 7, 12), {"gain", "up.weight", "norm.weight"}),
}


def scaled(name, how):
    make, shape, _ = CASES[name]
    model = seeded(make)
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * torch.logspace(-1, 1, shape[-1])
    anatomy = trace_anatomy(model, x)
    moments = calibrate(model, [x], anatomy, moments=True).moments
    with torch.no_grad():
        before = model(x)
        weights = {key: value.clone() for key, value in model.state_dict().items()}
        changed = scale_channels(model, x, how, anatomy=anatomy, moments=moments)
        return before, model(x), weights, model, changed


@pytest.mark.parametrize("name", CASES)
def test_every_link_is_found_and_no_other(name):
    make, shape, expected = CASES[name]
    assert {pair.producers[0] for pair in find_equalizable_pairs(seeded(make), torch.randn(*shape))} == expected


@pytest.mark.parametrize("how", ["equalize", "awq"])
@pytest.mark.parametrize("name", CASES)
def test_the_function_stays(name, how):
    before, after, weights, model, changed = scaled(name, how)
    assert float((after - before).abs().max()) <= 1e-5 * float(before.abs().max())
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, weights[key])}
    touched = {key for pair in changed for key in (*pair.producers, *(consumer.name for consumer in pair.consumers))}
    assert {pair.producers[0] for pair in changed} <= moved <= touched
    assert changed or (name, how) == ("normed", "equalize")


def test_equalized_rows_and_columns_have_the_same_range():
    *_, model, _ = scaled("plain", "equalize")
    rows = model.c.weight.flatten(1).abs().amax(1)
    columns = model.d.weight.reshape(10, 6, 9).abs().amax((0, 2))
    assert columns.detach() == pytest.approx(rows.detach(), rel=1e-2)


@pytest.mark.parametrize("name", sorted(set(AWKWARD) - {"nothing"}))
def test_awkward_models_keep_their_function(name):
    from paredown.compressors import forward
    from paredown.compressors.anatomy import compared_tensors

    model, inputs = AWKWARD[name]()
    anatomy = trace_anatomy(model, inputs)
    with torch.no_grad():
        before = forward(model, inputs)
        scale_channels(model, inputs, "equalize", anatomy=anatomy)
        after = compared_tensors(forward(model, inputs))
        for name, outputs in compared_tensors(before).items():
            assert torch.allclose(after[name], outputs, rtol=1e-4, atol=1e-5)


def test_shared_and_doubly_used_weights_are_in_no_link():
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    second.weight = first.weight
    assert find_equalizable_pairs(nn.Sequential(first, nn.ReLU(), second).eval(), torch.randn(2, 6)) == ()
    once = nn.Linear(6, 6)
    assert (
        find_equalizable_pairs(
            nn.Sequential(once, nn.ReLU(), once, nn.ReLU(), nn.Linear(6, 3)).eval(), torch.randn(2, 6)
        )
        == ()
    )
    bent = nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 3)).eval()
    assert find_equalizable_pairs(bent, torch.randn(2, 6)) == ()


def test_what_cannot_be_done_is_said():
    model, x = seeded(Plain), torch.randn(2, 3, 9, 9)
    anatomy = trace_anatomy(model, x)
    with pytest.raises(ConfigError, match="one of equalize, awq, got 'smooth'"):
        scale_channels(model, x, "smooth", anatomy=anatomy)
    with pytest.raises(ConfigError, match="give scale_channels their moments"):
        scale_channels(model, x, "awq", anatomy=anatomy)
