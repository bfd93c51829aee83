"""A replay gives bit for bit what the whole pass gives, or says that it cannot."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paredown.compressors import (
    Anatomy,
    CompressedModel,
    LayerSpec,
    applicable,
    compress,
    forward,
    preserved,
    trace_anatomy,
)
from paredown.compressors.anatomy import same_outputs
from paredown.errors import InputError
from paredown.evaluators.sensitivity import PrefixCache, PrefixMismatchError, Timeline
from paredown.testing import AWKWARD


class Residual(nn.Module):
    """Two branches, written to in place, as ResNets do it; and a tuple, a list and a dict on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.block = Block()
        self.pair = Pair()
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        x = self.block(x)
        parts = self.pair(x)
        parts["two"][1].add_(parts["one"])
        output: Tensor = self.head(parts["two"].pop().mean(dim=(2, 3)))
        return output


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(6, 6, 3, padding=1)
        self.right = nn.Conv2d(6, 6, 1)
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.left(x)
        out += self.right(x)
        self.relu(out)  # what it returns is not used: what counts is that it writes into its input
        output: Tensor = self.last(out)
        return output


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(6, 6, 1)
        self.two = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"one": self.one(x), "two": [None, self.two(x)]}


class Borrowed(nn.Module):
    """A module that uses another's weight before that one runs, without being a layer itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.mix = Mix(self.first)
        self.last = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.last(self.first(self.mix(x)))
        return output


class Mix(nn.Module):
    def __init__(self, owner: nn.Linear) -> None:
        super().__init__()
        self.weight = owner.weight

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.weight)


class Beneath(nn.Module):
    """A module that uses the weight of a layer below it without running that layer, which then runs by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.holder = Holder()
        self.last = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.last(self.holder.inner(self.holder(x)))
        return output


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.inner.weight)


MORE: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "residual": lambda: (Residual(), torch.randn(4, 3, 6, 6)),
    "beneath": lambda: (Beneath(), torch.randn(4, 5)),
    "borrowed": lambda: (Borrowed(), torch.randn(4, 5)),
}
MODELS = {**{name: make for name, make in AWKWARD.items() if name != "nothing"}, **MORE}


def _made(name: str) -> tuple[nn.Module, Any, Anatomy]:
    torch.manual_seed(3)
    model, inputs = MODELS[name]()
    model = model.eval().requires_grad_(False)
    return model, inputs, trace_anatomy(model, inputs)


def _run(model: nn.Module, inputs: Any) -> Tensor:
    with preserved(model):
        return forward(model, inputs)


@pytest.mark.parametrize("name", MODELS)
def test_a_replay_is_the_whole_pass_bit_for_bit(name: str) -> None:
    model, inputs, anatomy = _made(name)
    resident = CompressedModel(model, anatomy)
    spec = LayerSpec(weight_bits=2)
    cache = PrefixCache.record(model, inputs, anatomy)
    forwards = {module: vars(module).get("forward") for module in model.modules()}
    assert same_outputs(cache.outputs, _run(model, inputs))
    for group in anatomy.groups:
        assignment = {fqn: spec for fqn in group if applicable(spec, anatomy[fqn]) is None}
        variants = {fqn: compress(resident.weight(fqn), spec, anatomy[fqn]) for fqn in assignment}
        is_exact = all(torch.equal(v.effective, resident.weight(fqn)) for fqn, v in variants.items())
        for changed in (True, False, True):  # again, for the first one must not spoil what is kept
            with resident.apply(assignment if changed else {}, variants):
                whole = _run(model, inputs)
                with cache.before(group):
                    replayed = _run(model, inputs)
            assert same_outputs(whole, replayed)
            assert same_outputs(whole, cache.outputs) == (not changed or is_exact)
        assert 0.0 < cache.share(group) <= 1.0
    assert {module: vars(module).get("forward") for module in model.modules()} == forwards


def test_what_ran_before_does_not_run_again() -> None:
    model, inputs, anatomy = _made("mlp")
    cache = PrefixCache.record(model, inputs, anatomy)
    ran: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(lambda module, args, name=name: ran.append(name))
    total = 8 * 16 + 16 * 16 + 16 * 3
    assert cache.share(("0",)) == 1.0
    assert cache.share(("2",)) == pytest.approx((16 * 16 + 16 * 3) / total)
    assert cache.share(("4",)) == pytest.approx(16 * 3 / total)
    inner = vars(model[0]).get("forward")
    with cache.before(("4",)):
        assert vars(model[0])["forward"] is not inner
        _run(model, torch.full_like(inputs, torch.nan))  # nobody looks at it
    assert ran == ["0", "2", "4"]  # hooks come, and the layers behind them are answered for


def test_a_shared_module_is_answered_for_before_and_run_after() -> None:
    torch.manual_seed(0)
    shared, middle = nn.Linear(4, 4), nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Tanh(), middle, nn.Tanh(), shared).eval().requires_grad_(False)
    inputs = torch.randn(3, 4)
    anatomy = trace_anatomy(model, inputs)
    cache = PrefixCache.record(model, inputs, anatomy)
    assert cache.share(("2",)) == pytest.approx(2 / 3)
    assert cache.share(("0",)) == 1.0
    with torch.no_grad():
        middle.weight.mul_(2.0)
    whole = _run(model, inputs)
    with cache.before(("2",)):
        assert same_outputs(_run(model, inputs), whole)


def test_only_what_is_needed_is_kept() -> None:
    model, inputs, anatomy = _made("mlp")
    all_of_it = PrefixCache.record(model, inputs, anatomy)
    last = PrefixCache.record(model, inputs, anatomy, groups=[("2",)])
    assert last.n_bytes == 2 * 4 * 16 * 4  # the first layer's outputs and the rectified ones, four samples each
    assert all_of_it.n_bytes == 2 * last.n_bytes
    with pytest.raises(PrefixMismatchError, match="was not kept"), last.before(("4",)):
        _run(model, inputs)


class Draws(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Keeps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        self.last = x
        return x * 2.0


class Branches(nn.Module):
    """Goes another way when the first number is positive."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.two(self.one(x)) if bool(x[0, 0] > 0) else self.two(x)
        return output


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        (Draws(), "draws random numbers"),
        (Keeps(), "keeps something of a pass in itself"),
        (nn.Linear(3, 3), ""),
    ],
)
def test_a_model_that_a_replay_would_get_wrong_is_refused(odd: nn.Module, says: str) -> None:
    model = nn.Sequential(nn.Linear(3, 3), odd, nn.Linear(3, 2)).eval()
    inputs = torch.randn(4, 3)
    anatomy = trace_anatomy(model, inputs)
    timeline = Timeline.trace(model, inputs)
    assert says in (timeline.why_not or "")
    assert (timeline.why_not is None) == (says == "")
    if says:
        with pytest.raises(PrefixMismatchError, match=says):
            PrefixCache.record(model, inputs, anatomy)


def test_a_pass_that_depends_on_the_data_is_noticed() -> None:
    model = Branches().eval()
    anatomy = trace_anatomy(model, torch.ones(2, 3))
    timeline = Timeline.trace(model, torch.ones(2, 3))
    with pytest.raises(PrefixMismatchError, match="its calls depend on the data"):
        PrefixCache.record(model, -torch.ones(2, 3), anatomy, timeline=timeline)
    cache = PrefixCache.record(model, torch.ones(2, 3), anatomy, timeline=timeline)
    with pytest.raises(PrefixMismatchError, match="fewer calls"), cache.before(("two",)):
        _run(model, -torch.ones(2, 3))


def test_what_the_model_raises_comes_through_and_leaves_no_trace() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).eval()
    anatomy = trace_anatomy(model, torch.ones(2, 3))
    cache = PrefixCache.record(model, torch.ones(2, 3), anatomy)
    with pytest.raises(RuntimeError, match="shapes"):
        PrefixCache.record(model, torch.ones(2, 4), anatomy, timeline=cache.timeline)
    with pytest.raises(InputError), cache.before(("1",)):
        forward(model, 3)
    assert not any("forward" in vars(module) for module in model.modules())


REAL: dict[str, tuple[tuple[Any, ...], Callable[[], Tensor], float]] = {
    "CifarResNet": ((20,), lambda: torch.randn(2, 3, 32, 32), 0.6),
    "DSCNN": ((), lambda: torch.randn(2, 1, 49, 10), 0.65),
    "KWT": ((), lambda: torch.randn(2, 98, 40), 0.6),
    "TinyLlama": ((), lambda: torch.randint(0, 512, (2, 24)), 0.65),
}
"""Name in the assets' `models.py` -> arguments, inputs, and the mean share that must not be exceeded."""


@pytest.mark.assets
@pytest.mark.parametrize("name", REAL)
def test_real_architectures_are_replayed(name: str, assets: Path) -> None:
    spec = importlib.util.spec_from_file_location("paredown_tests_models", assets / "models.py")
    assert spec is not None
    assert spec.loader is not None
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    arguments, make_inputs, most = REAL[name]
    torch.manual_seed(0)
    model = getattr(models, name)(*arguments).eval().requires_grad_(False)
    inputs = make_inputs()
    anatomy = trace_anatomy(model, inputs)
    cache = PrefixCache.record(model, inputs, anatomy)
    for group in anatomy.groups:
        weights = [model.get_submodule(fqn).weight for fqn in group]
        before = [weight.data for weight in weights]
        for weight in weights:
            weight.data = 0.5 * weight.data
        whole = _run(model, inputs)
        with cache.before(group):
            assert same_outputs(_run(model, inputs), whole)
        for weight, data in zip(weights, before, strict=True):
            weight.data = data
    shares = [cache.share(group) for group in anatomy.groups]
    assert sum(shares) / len(shares) < most
