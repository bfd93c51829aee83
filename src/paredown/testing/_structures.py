"""Little architectures with channels, heads, neurons or units to remove, for each kind of coupling, in a few lines
each.

`STRUCTURES` maps a name to a function that makes (model in eval mode, inputs for `compressors.forward`), the same every
time, with batch norms that have statistics of their own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..compressors import Inputs


class Residual(nn.Module):
    """Stem and two basic blocks on one stage, the second of half the resolution; shortcuts as named.

    shortcut  "projection": a strided convolution; "padded": every second pixel, and zeros for the new channels
    """

    def __init__(self, shortcut: str = "projection") -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv3, self.bn3 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv4, self.bn4 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.shortcut = nn.Conv2d(8, 16, 1, stride=2, bias=False) if shortcut == "projection" else None
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn(self.stem(x)))
        x = functional.relu(x + self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x))))))
        y = self.bn4(self.conv4(functional.relu(self.bn3(self.conv3(x)))))
        x = self.shortcut(x) if self.shortcut else functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        output: Tensor = self.head(functional.relu(x + y).mean(dim=(2, 3)))
        return output


class Dense(nn.Module):
    """Concatenated features under one batch norm, and a flatten before the head."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)
        self.bn, self.c = nn.BatchNorm2d(10), nn.Conv2d(10, 4, 1)
        self.head = nn.Linear(4 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.a(x))
        x = torch.cat([x, functional.relu(self.b(x))], dim=1)
        output: Tensor = self.head(functional.relu(self.c(functional.relu(self.bn(x)))).flatten(1))
        return output


class Separable(nn.Module):
    """Depthwise and pointwise convolutions, with a sigmoid gate on channels (a masked channel's gate is not zero)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.depthwise, self.bn1 = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
        self.pointwise, self.bn2 = nn.Conv2d(8, 12, 1), nn.BatchNorm2d(12)
        self.squeeze, self.gate = nn.Linear(12, 6), nn.Linear(6, 12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn(self.conv(x)))
        x = functional.relu(self.bn1(self.depthwise(x)))
        x = functional.silu(self.bn2(self.pointwise(x))).mean(dim=(2, 3))
        output: Tensor = self.head(x * torch.sigmoid(self.gate(functional.relu(self.squeeze(x)))))
        return output


class Connected(nn.Module):
    """Layers that each read all earlier ones, under a norm of their own (a DenseNet), and a MobileNetV2 block.

    The latter is a residual around a depthwise convolution between pointwise ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6 + 4 * i) for i in range(4))
        self.layers = nn.ModuleList(nn.Conv2d(6 + 4 * i, 4, 3, padding=1, bias=False) for i in range(3))
        self.transition = nn.Conv2d(18, 8, 1, bias=False)
        self.widen, self.bn1 = nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.depthwise, self.bn2 = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16)
        self.narrow, self.bn3 = nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, layer in zip(self.norms, self.layers, strict=False):
            x = torch.cat([x, layer(functional.relu(norm(x)))], dim=1)
        x = functional.avg_pool2d(self.transition(functional.relu(self.norms[3](x))), 2)
        y = functional.relu6(self.bn2(self.depthwise(functional.relu6(self.bn1(self.widen(x))))))
        output: Tensor = self.head((x + self.bn3(self.narrow(y))).mean(dim=(2, 3)))
        return output


class Grouped(nn.Module):
    """Convolution in four groups: each group must lose as many channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 16, 3, padding=1, groups=4, bias=False)
        self.norm, self.c, self.head = nn.GroupNorm(4, 16), nn.Conv2d(16, 5, 1), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.c(functional.silu(self.norm(self.b(self.a(x))))).mean(dim=(2, 3)))
        return output


class Recurrent(nn.Module):
    """LSTM (or GRU) of two layers between linear layers."""

    def __init__(self, cell: str = "LSTM", *, bidirectional: bool = False) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 6)
        self.cell = getattr(nn, cell)(6, 8, num_layers=2, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(16 if bidirectional else 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.cell(torch.relu(self.inner(x)))[0])
        return output


class Encoder(nn.Module):
    """PyTorch's own transformer encoder, pre-norm, over features."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True, norm_first=True)
        self.embed, self.layers = nn.Linear(6, 16), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.layers(self.embed(x)).mean(dim=1))
        return output


class Decoder(nn.Module):
    """PyTorch's own transformer decoder: tokens with a causal mask, and a memory that they attend to."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerDecoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
        self.embed, self.memory = nn.Embedding(11, 16), nn.Linear(6, 16)
        self.layers, self.head = nn.TransformerDecoder(layer, 2), nn.Linear(16, 11)

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        n = tokens.shape[1]
        causal = torch.full((n, n), float("-inf"), dtype=features.dtype).triu(1)
        output: Tensor = self.head(
            self.layers(self.embed(tokens), self.memory(features), tgt_mask=causal, tgt_is_causal=True)
        )
        return output


class GroupedQueries(nn.Module):
    """Block of a decoder written by hand: eight query heads over four key/value heads, a gated MLP, RMS norms."""

    def __init__(self, width: int = 32, n_heads: int = 8, n_kv_heads: int = 4) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = n_heads, n_kv_heads, width // n_heads
        self.embed, self.norm1, self.norm2 = nn.Embedding(20, width), nn.RMSNorm(width), nn.RMSNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key, self.value = (nn.Linear(width, n_kv_heads * self.head_dim, bias=False) for _ in range(2))
        self.out = nn.Linear(width, width, bias=False)
        self.gate, self.up, self.down = nn.Linear(width, 24), nn.Linear(width, 24), nn.Linear(24, width)
        self.head = nn.Linear(width, 20, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        h = self.norm1(x)
        q = self.query(h).unflatten(2, (self.n_heads, self.head_dim)).transpose(1, 2)
        k, v = (f(h).unflatten(2, (self.n_kv_heads, self.head_dim)).transpose(1, 2) for f in (self.key, self.value))
        k, v = (t.repeat_interleave(self.n_heads // self.n_kv_heads, dim=1) for t in (k, v))
        x = x + self.out(functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        h = self.norm2(x)
        output: Tensor = self.head(x + self.down(functional.silu(self.gate(h)) * self.up(h)))
        return output


class Packed(nn.Module):
    """Packed attention: queries, keys and values of one linear layer.

    interleaved  each head's query, key and value lie side by side; else all queries come first
    """

    def __init__(self, *, interleaved: bool) -> None:
        super().__init__()
        self.interleaved, self.num_heads = interleaved, 4
        self.qkv, self.proj, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        if self.interleaved:
            q, k, v = self.qkv(x).view(n, t, self.num_heads, 3, -1).permute(3, 0, 2, 1, 4)
        else:
            q, k, v = self.qkv(x).view(n, t, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * 0.5).softmax(dim=-1)
        output: Tensor = self.head(x + self.proj((weights @ v).transpose(1, 2).flatten(2)))
        return output


class Experts(nn.Module):
    """Mixture of six experts, of which two are asked for each token.

    dispatched  each expert runs on those tokens alone that ask it; else all run on all
    """

    def __init__(self, *, dispatched: bool = False) -> None:
        super().__init__()
        self.embed, self.head, self.dispatched = nn.Linear(5, 8), nn.Linear(8, 3), dispatched
        self.router, self.top_k = nn.Linear(8, 6, bias=dispatched), 2
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8)) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        weights, chosen = self.router(x).softmax(dim=-1).topk(self.top_k, dim=-1)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        mixed = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            share = (weights * (chosen == i)).sum(dim=-1, keepdim=True)
            if self.dispatched:
                asking = (chosen == i).any(dim=-1)
                mixed[asking] += expert(x[asking]) * share[asking]
            else:
                mixed = mixed + expert(x) * share
        output: Tensor = self.head(x + mixed)
        return output


STRUCTURES: dict[str, Callable[[], tuple[nn.Module, Inputs]]] = {}
"""Mapping name -> function that makes (model, inputs)."""


def _add(name: str, make_model: Callable[[], nn.Module], make_inputs: Callable[[], Inputs]) -> None:
    def make() -> tuple[nn.Module, Inputs]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(name))
            model = make_model().eval()
            for key, value in model.state_dict().items():
                if key.endswith("running_var"):
                    value.uniform_(0.5, 2.0)
                elif key.endswith("running_mean"):
                    value.normal_()
            return model, make_inputs()

    STRUCTURES[name] = make


def _pixels(channels: int, side: int = 8) -> Callable[[], Tensor]:
    return lambda: torch.randn(3, channels, side, side)


_add("residual", Residual, _pixels(3))
_add("padded_shortcut", lambda: Residual("padded"), _pixels(3))
_add("dense", Dense, _pixels(3, 4))
_add("connected", Connected, _pixels(3, 4))
_add("separable", Separable, _pixels(1))
_add("grouped", Grouped, _pixels(3))
_add("lstm", Recurrent, lambda: torch.randn(3, 7, 5))
_add("lstm_both_ways", lambda: Recurrent(bidirectional=True), lambda: torch.randn(3, 7, 5))
_add("gru", lambda: Recurrent("GRU"), lambda: torch.randn(3, 7, 5))
_add("encoder", Encoder, lambda: torch.randn(3, 5, 6))
_add("decoder", Decoder, lambda: (torch.randint(0, 11, (3, 4)), torch.randn(3, 5, 6)))
_add("grouped_queries", GroupedQueries, lambda: torch.randint(0, 20, (3, 6)))
_add("packed", lambda: Packed(interleaved=False), lambda: torch.randn(3, 5, 16))
_add("packed_by_head", lambda: Packed(interleaved=True), lambda: torch.randn(3, 5, 16))
_add("experts", Experts, lambda: torch.randn(12, 5))
_add("experts_dispatched", lambda: Experts(dispatched=True), lambda: torch.randn(60, 5))
