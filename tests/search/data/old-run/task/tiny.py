"""A user's own file: a model that runs in microseconds, its data, and models that misbehave on purpose."""

from __future__ import annotations

import os
import time

import torch
from torch import Tensor, nn


class Tiny(nn.Module):
    """Three linear layers on sixteen numbers, ten classes that lie close together."""

    def __init__(self, trouble: str | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(16, 24)
        self.second = nn.Linear(24, 24)
        self.last = nn.Linear(24, 10)
        for layer in (self.first, self.second, self.last):
            nn.init.normal_(layer.weight, std=0.5)
        self.trouble = trouble

    def forward(self, x: Tensor) -> Tensor:
        if self.trouble and len(self.second.weight[0].unique()) <= 4:  # the second layer has two bits
            self.make_trouble()
            if self.trouble == "nan":
                return torch.full((len(x), 10), float("nan"))
        return self.last(torch.relu(self.second(torch.relu(self.first(x)))))

    def make_trouble(self) -> None:
        if self.trouble == "raise":
            raise RuntimeError("the kernel took fright")
        if self.trouble == "memory":
            raise MemoryError("no room for 3 GB")
        if self.trouble == "hang":
            time.sleep(600)
        if self.trouble == "die":
            os._exit(7)


def model(trouble: str | None = None) -> nn.Module:
    return Tiny(trouble)


def data(n: int = 400) -> tuple[Tensor, Tensor]:
    """The labels are what the model itself says, a tenth of them changed."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 16, generator=generator)
    with torch.no_grad():
        y = Tiny()(x).argmax(1)
    flip = torch.rand(n, generator=generator) < 0.1
    return x, torch.where(flip, (y + 1) % 10, y)


def nan_metric(outputs: Tensor, targets: Tensor) -> Tensor:
    return torch.full((len(outputs),), float("nan"))


def scalar_metric(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(1) == targets).float().mean()


def margin(outputs: Tensor, targets: Tensor) -> Tensor:
    """A metric of the user's own: the logit of the right answer above the mean."""
    return outputs.gather(1, targets[:, None])[:, 0] - outputs.mean(1)
