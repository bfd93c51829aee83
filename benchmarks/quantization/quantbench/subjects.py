"""The models and their data: real weights, found by PAREDOWN_ASSETS. Calibration never meets the report data.

ResNet-20 and ResNet-8 calibrate on training images, choose on 1,000 and report on 2,500 others of the first 5,000 test
images; of the keyword nets there are no training recordings, so 64 of the test recordings calibrate, 120 choose and the
others report. The language model calibrates on 64 windows of 512 tokens, chooses on 32 and reports on 128 others.
ResNet-8: Banbury et al. (2021), "MLPerf Tiny Benchmark"; the language model is a Llama (Touvron et al. 2023) of 260 k.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from paredown.evaluators import Split

BENCHMARKS = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(BENCHMARKS / "search"))
from searchbench import sources  # noqa: E402

WINDOW = 512
N_SEARCH, N_SPOKEN = 1000, 120
"""Images, and recordings, that settings are chosen on."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model, what it is calibrated on (a tensor of inputs), what settings are chosen on, and reported on."""

    name: str
    model: nn.Module
    calibration: Tensor
    search: Split
    report: Split
    metric: str
    batch_size: int


def _images(standardised: bool, n_calibration: int = 512) -> dict[str, Any]:
    order = np.random.default_rng(0).permutation(5000)
    inputs, _ = sources._images("train_first10000.npz", np.arange(n_calibration))
    search, search_labels = sources._images("test_first5000.npz", np.sort(order[:N_SEARCH]))
    report, labels = sources._images("test_first5000.npz", np.sort(order[2500:]))
    if not standardised:
        mean, std = (torch.tensor(values)[:, None, None] for values in (sources.MEAN, sources.STD))
        inputs, search, report = (((x * std + mean) * 255.0).round() for x in (inputs, search, report))
    return {
        "calibration": inputs.contiguous(),
        "search": Split("search", search.contiguous(), search_labels),
        "report": Split("report", report.contiguous(), labels),
    }


def resnet20() -> Subject:
    model = runpy.run_path(str(BENCHMARKS.parent / "examples" / "cifar10" / "resnet.py"))["trained_resnet20"]()
    return Subject(name="resnet20", model=model.eval(), metric="accuracy", batch_size=250, **_images(standardised=True))


class _Same(nn.Conv2d):
    """TensorFlow's "SAME": of an odd padding the larger half is behind."""

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for length, kernel, stride in zip(
            reversed(x.shape[2:]), reversed(self.kernel_size), reversed(self.stride), strict=True
        ):
            total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(functional.pad(x, pads))


class ResNet8(nn.Module):
    """78,186 parameters: (N, 3, 32, 32), pixels of 0 to 255, to logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = _Same(3, 16, 3), nn.BatchNorm2d(16, eps=1e-3)
        for stage, (inner, outer, stride) in enumerate(((16, 16, 1), (16, 32, 2), (32, 64, 2)), 1):
            setattr(self, f"c{stage}1", _Same(inner, outer, 3, stride))
            setattr(self, f"c{stage}2", _Same(outer, outer, 3))
            setattr(self, f"b{stage}1", nn.BatchNorm2d(outer, eps=1e-3))
            setattr(self, f"b{stage}2", nn.BatchNorm2d(outer, eps=1e-3))
            if stride > 1:
                setattr(self, f"s{stage}", _Same(inner, outer, 1, stride))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn(self.conv(x)))
        for stage in (1, 2, 3):
            part = {key: getattr(self, f"{key[0]}{stage}{key[1:]}") for key in ("c1", "c2", "b1", "b2")}
            y = part["b2"](part["c2"](functional.relu(part["b1"](part["c1"](x)))))
            skip = getattr(self, f"s{stage}", None)
            x = functional.relu(y + (x if skip is None else skip(x)))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def resnet8() -> Subject:
    model = ResNet8()
    model.load_state_dict(load_file(sources.ASSETS / "cifar10" / "resnet8.safetensors"))
    return Subject(name="resnet8", model=model.eval(), metric="accuracy", batch_size=250, **_images(standardised=False))


def _keywords(name: str, model: nn.Module, load: Callable[[], dict[str, tuple[Tensor, Tensor]]]) -> Subject:
    parts = load()
    inputs, labels = (torch.cat([parts[key][i] for key in ("search", "report")]) for i in (0, 1))
    search, report = (
        Split(part, inputs[where], labels[where])
        for part, where in (("search", slice(N_SPOKEN)), ("report", slice(N_SPOKEN, None)))
    )
    return Subject(
        name=name, model=model, calibration=parts["calibration"][0], search=search, report=report, metric="accuracy",
        batch_size=128,
    )  # fmt: skip


def dscnn() -> Subject:
    return _keywords("dscnn", sources.dscnn(), sources.spoken_mfcc)


def kwt1() -> Subject:
    return _keywords("kwt1", sources.kwt1(), sources.spoken_frames)


class _Norm(nn.Module):
    """Root mean square normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


class _Attention(nn.Module):
    """Heads that share keys and values in pairs; adjacent numbers of a head are rotated together."""

    def __init__(self, width: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, width // heads
        self.wq, self.wo = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.wk, self.wv = (nn.Linear(width, kv_heads * self.size, bias=False) for _ in range(2))

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        n, t, width = x.shape
        q, k, v = (
            layer(x).view(n, t, -1, self.size).transpose(1, 2) for layer in (self.wq, self.wk, self.wv)
        )  # (n, heads, t, size)
        q, k = (self._rotated(part, turn[:t]) for part in (q, k))
        k, v = (part.repeat_interleave(self.heads // self.kv_heads, dim=1) for part in (k, v))
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        output: Tensor = self.wo(seen.transpose(1, 2).reshape(n, t, width))
        return output

    @staticmethod
    def _rotated(x: Tensor, turn: Tensor) -> Tensor:
        even, odd = x[..., 0::2], x[..., 1::2]
        cos, sin = turn.cos(), turn.sin()
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


class _FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w1, self.w3 = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.w2(functional.silu(self.w1(x)) * self.w3(x))
        return output


class _Block(nn.Module):
    def __init__(self, width: int, hidden: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.attention, self.feed_forward = _Attention(width, heads, kv_heads), _FeedForward(width, hidden)
        self.attention_norm, self.ffn_norm = _Norm(width), _Norm(width)

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), turn)
        output: Tensor = x + self.feed_forward(self.ffn_norm(x))
        return output


class TinyLlama(nn.Module):
    """Tokens (N, T <= 512) to logits (N, T, 512); the head is the embedding."""

    def __init__(self, width: int = 64, hidden: int = 172, depth: int = 5, heads: int = 8, kv_heads: int = 4) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(512, width)
        self.layers = nn.ModuleList(_Block(width, hidden, heads, kv_heads) for _ in range(depth))
        self.norm = _Norm(width)
        self.output = nn.Linear(width, 512, bias=False)
        self.output.weight = self.tok_embeddings.weight
        size = width // heads
        self.turn: Tensor
        frequencies = 10000.0 ** -(torch.arange(0, size, 2).float() / size)
        self.register_buffer("turn", torch.outer(torch.arange(WINDOW).float(), frequencies), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tok_embeddings(tokens)
        for layer in self.layers:
            x = layer(x, self.turn)
        logits: Tensor = self.output(self.norm(x))
        return logits


def stories() -> Subject:
    model = TinyLlama()
    weights = load_file(sources.ASSETS / "tinystories" / "stories260k.safetensors")
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - {"output.weight"}:
        raise RuntimeError(f"the weights do not fit: {missing}, {unexpected}")
    with np.load(sources.ASSETS / "tinystories" / "tokens_dev.npz", allow_pickle=False) as archive:
        tokens = torch.from_numpy(archive[archive.files[0]].astype(np.int64))
    windows = tokens[: len(tokens) // WINDOW * WINDOW].reshape(-1, WINDOW)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(windows)))
    search, report = Split("search", windows[order[192:224]]), Split("report", windows[order[64:192]])
    return Subject(
        name="stories260k", model=model.eval(), calibration=windows[order[:64]], search=search, report=report,
        metric="perplexity", batch_size=16,
    )  # fmt: skip


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "resnet20": resnet20, "resnet8": resnet8, "dscnn": dscnn, "kwt1": kwt1, "stories260k": stories,
}  # fmt: skip
