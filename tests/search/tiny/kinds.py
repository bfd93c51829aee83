"""Models for each kind of point: layers of several types, experts in a list, and experts in one tensor."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.a, self.bn, self.b = nn.Conv2d(n, n, 3, padding=1, bias=False), nn.BatchNorm2d(n), nn.Conv2d(n, n, 1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = x + self.b(torch.relu(self.bn(self.a(x))))
        return output


class Layers(nn.Module):
    """16 numbers as a picture of 4 x 4: channels, a block that can be dropped, neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(Residual(8))
        self.conv = nn.Conv2d(8, 12, 3, padding=1)
        self.inner, self.head = nn.Linear(12 * 16, 20), nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(torch.relu(self.bn(self.stem(x.reshape(-1, 1, 4, 4)))))
        output: Tensor = self.head(torch.relu(self.inner(torch.relu(self.conv(x)).flatten(1))))
        return output


class Listed(nn.Module):
    """A mixture whose experts are modules in a list; two of six answer."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.top_k, self.head = nn.Linear(16, 6, bias=False), 2, nn.Linear(16, 10)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 16)) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.gate(x).softmax(-1).topk(self.top_k, -1)
        mixed = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            mixed = mixed + expert(x) * (weights * (chosen == i)).sum(-1, keepdim=True)
        output: Tensor = self.head(x + mixed)
        return output


class Router(nn.Module):
    """Numbers and weights of the two experts of each token, as transformers' routers give them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.top_k, self.num_experts = nn.Parameter(torch.randn(6, 16)), 2, 6

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = x @ self.weight.T
        weights, chosen = logits.softmax(-1).topk(self.top_k, -1)
        return logits, weights / weights.sum(-1, keepdim=True), chosen


class Stacked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(6, 16, 12) / 4), nn.Parameter(torch.randn(6, 12, 16) / 4)

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        hidden = torch.einsum("bi,bkio->bko", x, self.up[chosen]).relu()
        return torch.einsum("bko,bkoi,bk->bi", hidden, self.down[chosen], weights)


class Packed(nn.Module):
    """A mixture whose experts lie in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts, self.head = Router(), Stacked(), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        _, weights, chosen = self.gate(x)
        output: Tensor = self.head(x + self.experts(x, chosen, weights))
        return output


def layers() -> nn.Module:
    torch.manual_seed(0)
    return Layers().eval()


def listed() -> nn.Module:
    torch.manual_seed(1)
    return Listed().eval()


def packed() -> nn.Module:
    torch.manual_seed(2)
    return Packed().eval()


def data(of: str, n: int = 240) -> tuple[Tensor, Tensor]:
    """The labels are what the model says itself."""
    x = torch.randn(n, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return x, {"layers": layers, "listed": listed, "packed": packed}[of]()(x).argmax(1)
