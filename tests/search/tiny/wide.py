"""A classifier whose linear layers are wide enough for a runtime to keep their weights narrow, and its data."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Wide(nn.Module):
    """Eight tokens of sixteen numbers; two layers of 147,456 weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first, self.second, self.third = nn.Linear(16, 384), nn.Linear(384, 384), nn.Linear(384, 384)
        self.last = nn.Linear(384, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.second(torch.tanh(self.first(x))))
        output: Tensor = self.last(torch.relu(self.third(hidden)).mean(dim=1))
        return output


def model() -> nn.Module:
    return Wide()


def data(n: int = 120) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 8, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return x, Wide()(x).argmax(1)
