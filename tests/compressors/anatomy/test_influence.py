"""Layers that run and influence nothing, in models that can be differentiated and in others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from paredown.compressors import trace_anatomy


class Branches(nn.Module):
    """The router chooses by whole numbers, `detached` has no gradient: both are read. Two branches are not."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(4, 4)
        self.pooler = nn.Linear(4, 4)
        self.auxiliary = nn.LSTM(4, 4, batch_first=True)
        self.router = nn.Linear(4, 3)
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.mix = nn.LSTM(4, 4, batch_first=True)
        self.detached = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.encode(x)
        self.pooler(x).tanh()
        self.auxiliary(x)
        chosen = self.router(x).argmax(-1, keepdim=True)
        y = sum((torch.where(chosen == n, expert(x), 0.0) for n, expert in enumerate(self.experts)), x)
        return self.head(y + self.mix(y)[0] + self.detached(x).detach())


class WithoutGradient(Branches):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class Answers(Branches):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).argmax(-1)


@pytest.mark.parametrize("kind", [Branches, WithoutGradient, Answers])
def test_what_nobody_reads_is_found(kind: type[Branches]) -> None:
    torch.manual_seed(0)
    model = kind().eval().requires_grad_(False)
    x = torch.randn(64, 5, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    anatomy = trace_anatomy(model, x, x[:1])
    idle = ("pooler", "auxiliary.weight_ih_l0", "auxiliary.weight_hh_l0")
    assert anatomy.without_effect == idle
    assert set(idle) <= set(anatomy.unused)
    assert not set(idle) & set(anatomy.fqns)
    assert "router" in anatomy.fqns
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


class Twice(nn.Module):
    """Tied to a layer that is read: the weight is compressed, the dead use has no say."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.dead = nn.Linear(4, 4), nn.Linear(4, 4)
        self.dead.weight = self.used.weight

    def forward(self, x: Tensor) -> Tensor:
        self.dead(x)
        output: Tensor = self.used(x)
        return output


def test_a_dead_use_of_a_tied_weight() -> None:
    anatomy = trace_anatomy(Twice().eval(), torch.randn(3, 4))
    assert anatomy.without_effect == ("dead",)
    assert anatomy.groups == (("used",),)
    assert anatomy["used"].tied_to == ()


def test_a_path_of_zero_gradient_is_a_path() -> None:
    class Zero(Twice):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.dead(x) * 0.0

    assert trace_anatomy(Zero().eval(), torch.randn(3, 4)).without_effect == ()
