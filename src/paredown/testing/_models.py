"""Awkward little models that a compressor, a searcher or a runtime is likely to get wrong, each in a few lines.

`AWKWARD` maps a name to a function that makes (model in eval mode, inputs for `compressors.forward`), the same every
time. The batch has four samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..compressors import Inputs

_N = 4


class TiedWeights(nn.Module):
    """A little language model whose head is its embedding: one tensor, two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 8)
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 12, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        output: Tensor = self.head(torch.tanh(self.mix(self.embed(tokens))))
        return output


class SharedModule(nn.Module):
    """One module under two names, run three times."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.again = self.first
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.last(self.first(self.again(self.first(x))))
        return output


class NeverRuns(nn.Module):
    """A layer that no forward pass reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(5, 4)
        self.spare = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.used(x)
        return output


class OutOfOrder(nn.Module):
    """Layers that run in another order than they are defined in, one of them by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(7, 2)
        self.first = nn.Linear(5, 7)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.last(input=functional.relu(self.first(x)))
        return output


class KeywordInputs(nn.Module):
    """Model called with a dict that returns a dict, like a Hugging Face model; it has a buffer and a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 6)
        self.proj = nn.Linear(6, 4)
        self.offset = nn.Parameter(torch.randn(4))
        self.mask: Tensor
        self.register_buffer("mask", torch.tensor([True, True, False, True]))

    def forward(self, input_ids: Tensor, scale: Tensor) -> dict[str, Tensor]:
        hidden = self.embed(input_ids).mean(dim=1) * scale
        return {"logits": (self.proj(hidden) + self.offset) * self.mask}


class Transformer(nn.Module):
    """Pre-norm block over tokens: attention of two heads, MLP, and a head on the mean."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, width)
        self.norm1 = nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.classify = nn.Linear(width, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        n, t, d = x.shape
        h = self.norm1(x)
        q, k, v = (f(h).view(n, t, 2, d // 2).transpose(1, 2) for f in (self.query, self.key, self.value))
        attended = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, d)
        x = x + self.out(attended)
        x = x + self.down(functional.gelu(self.up(self.norm2(x))))
        output: Tensor = self.classify(x.mean(dim=1))
        return output


class _FusedAttention(nn.Module):
    """Attention of two heads, written out: queries, keys and values from one layer, and products of plain tensors."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 2, d // 2).permute(2, 0, 3, 1, 4).unbind(0)
        scores = functional.softmax(q @ k.transpose(-2, -1) / 2.0, dim=-1)
        output: Tensor = self.out(torch.matmul(scores, v).transpose(1, 2).flatten(2))
        return output


class WrittenOut(nn.Module):
    """Attention that is written out, twice, and a head on the first token."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_FusedAttention() for _ in range(2))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        output: Tensor = self.head(x[:, 0])
        return output


class Recurrent(nn.Module):
    """LSTM in both directions over tokens, a GRU over its output, and a head on the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(15, 8)
        self.lstm = nn.LSTM(8, 6, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(12, 10, batch_first=True)
        self.head = nn.Linear(10, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.embed(tokens))
        hidden, _ = self.gru(hidden)
        output: Tensor = self.head(hidden[:, -1])
        return output


class Multihead(nn.Module):
    """Model with `nn.MultiheadAttention`, which uses the weight of its `out_proj` itself, between ordinary layers."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Linear(6, width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.classify = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        output: Tensor = self.classify(x.mean(dim=1))
        return output


class Residual(nn.Module):
    """Two residual blocks, one with a convolution in its shortcut; the branch that is added is normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.blocks = nn.Sequential(_Block(6, 6), _Block(6, 8))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.blocks(functional.relu(self.stem(x))).mean(dim=(2, 3)))
        return output


class _Block(nn.Module):
    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(inner, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer)
        self.second, self.norm2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer)
        self.around = nn.Identity() if inner == outer else nn.Conv2d(inner, outer, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.norm1(self.first(x)))
        out = self.norm2(self.second(out))
        out += self.around(x)
        return functional.relu(out)


class Encoder(nn.Module):
    """PyTorch's own encoder, which has a fused path in eval mode: its layers' modules are then never called."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, width)
        block = nn.TransformerEncoderLayer(width, 2, 24, dropout=0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.classify = nn.Linear(width, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        output: Tensor = self.classify(self.blocks(self.embed(tokens)).mean(dim=1))
        return output


class CrossAttention(nn.Module):
    """Cross-attention with keys and values of other widths than the queries: three separate projections; time comes
    first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=10, bias=False)
        self.lstm = nn.LSTM(8, 6, num_layers=2, bias=False)
        self.head = nn.Linear(6, 3)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        mixed, _ = self.attention(*(x.transpose(0, 1) for x in (query, key, value)))
        hidden, _ = self.lstm(mixed)
        output: Tensor = self.head(hidden[-1])
        return output


class Scaled(nn.Module):
    """Model with nothing that can be compressed."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))


def _convolutions() -> nn.Module:
    """Convolution, batch norm with statistics of its own, ReLU, pooling, head."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 4),
    )
    for name, value in model[1].state_dict().items():
        if name == "running_var":
            value.uniform_(0.5, 2.0)
        elif value.is_floating_point():
            value.normal_()
    return model


def _depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False),
        nn.ReLU(),
        nn.Conv2d(6, 8, 1),
        nn.Flatten(),
        nn.Linear(200, 3),
    )


class _SeveralOutputs(nn.Module):
    """Boxes, logits in an inner dict, the answer as a whole number, and a tensor that is returned twice."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.boxes, self.classes = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> dict[str, Any]:
        h = torch.relu(self.trunk(x))
        scores = self.classes(h)
        return {"boxes": self.boxes(h), "heads": {"scores": scores, "again": scores}, "answer": scores.argmax(dim=1)}


def _one_channel() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(4, 1))


AWKWARD: dict[str, Callable[[], tuple[nn.Module, Inputs]]] = {}
"""Mapping name -> function that makes (model, inputs). Only `nothing` has no layer that can be compressed."""


def _add(name: str, make_model: Callable[[], nn.Module], make_inputs: Callable[[], Inputs]) -> None:
    def make() -> tuple[nn.Module, Inputs]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(name))
            return make_model().eval(), make_inputs()

    AWKWARD[name] = make


def _tokens(high: int) -> Tensor:
    return torch.randint(0, high, (_N, 7))


_add("mlp", _mlp, lambda: torch.randn(_N, 8))
_add("bare_layer", lambda: nn.Linear(5, 3), lambda: torch.randn(_N, 5))
_add("convolutions", _convolutions, lambda: torch.randn(_N, 3, 9, 9))
_add("conv1d", lambda: nn.Sequential(nn.Conv1d(2, 6, 3), nn.ReLU(), nn.Conv1d(6, 4, 5)), lambda: torch.randn(_N, 2, 16))
_add(
    "transposed",
    lambda: nn.Sequential(
        nn.Conv2d(2, 6, 3, stride=2),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 3, stride=2, groups=2, bias=False),
        nn.BatchNorm2d(4),
        nn.Flatten(2),
        nn.ConvTranspose1d(4, 3, 2, padding=1),
    ),
    lambda: torch.randn(_N, 2, 7, 7),
)
_add("grouped", lambda: nn.Sequential(nn.Conv2d(6, 9, 3, groups=3), nn.Flatten()), lambda: torch.randn(_N, 6, 5, 5))
_add("depthwise", _depthwise, lambda: torch.randn(_N, 6, 5, 5))
_add("one_channel", _one_channel, lambda: torch.randn(_N, 1, 2, 2))
_add("no_bias", lambda: nn.Sequential(nn.Linear(6, 5, bias=False)), lambda: torch.randn(_N, 6))
_add("tied_weights", TiedWeights, lambda: _tokens(12))
_add("shared_module", SharedModule, lambda: torch.randn(_N, 6))
_add("never_runs", NeverRuns, lambda: torch.randn(_N, 5))
_add("out_of_order", OutOfOrder, lambda: (torch.randn(_N, 5),))
_add("keyword_inputs", KeywordInputs, lambda: {"input_ids": _tokens(10), "scale": torch.rand(_N, 1)})
_add("transformer", Transformer, lambda: _tokens(20))
_add("written_out", WrittenOut, lambda: torch.randn(_N, 6, 16))
_add("recurrent", Recurrent, lambda: _tokens(15))
_add("multihead", Multihead, lambda: torch.randn(_N, 7, 6))
_add("residual", Residual, lambda: torch.randn(_N, 3, 8, 8))
_add("encoder", Encoder, lambda: _tokens(20))
_add(
    "cross_attention",
    CrossAttention,
    lambda: (torch.randn(_N, 5, 8), torch.randn(_N, 7, 6), torch.randn(_N, 7, 10)),
)
_add("several_outputs", _SeveralOutputs, lambda: torch.randn(_N, 6))
_add("nothing", Scaled, lambda: torch.randn(_N, 3))
