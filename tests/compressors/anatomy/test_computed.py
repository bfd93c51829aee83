"""Weights that are computed from other parameters are made plain, with the same outputs."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from paredown.compressors import load_model, save_model
from paredown.compressors.anatomy import compressible, computed_weights, copied, fold_weights, plain_model


class Half(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0.5


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


def user(module: nn.Module, name: str = "weight", by: type[nn.Module] = Half) -> nn.Module:
    parametrize.register_parametrization(module, name, by())
    return module


def old(how: Callable[..., nn.Module], module: nn.Module, name: str = "weight") -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return how(module, name)


def pruned(module: nn.Module) -> nn.Module:
    prune.l1_unstructured(module, "weight", 0.5)
    return module


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        user(self.attention, "in_proj_weight")
        user(self.attention.out_proj)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.attention(x, x, x)[0]
        return output


HIDDEN = "weight_hh_l0"
CASES: dict[str, Callable[[], nn.Module]] = {
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(4, 4)),
    "old weight norm": lambda: old(nn.utils.weight_norm, nn.Linear(4, 4)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(4, 4)),
    "old spectral norm": lambda: old(nn.utils.spectral_norm, nn.Linear(4, 4)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(4, 4)),
    "weight and bias": lambda: user(user(nn.Linear(4, 4)), "bias"),
    "two in turn": lambda: user(parametrizations.weight_norm(nn.Linear(4, 4))),
    "pruned": lambda: pruned(nn.Linear(4, 4)),
    "lstm": lambda: user(nn.LSTM(4, 6, batch_first=True), HIDDEN),
    "gru, weight norm": lambda: parametrizations.weight_norm(nn.GRU(4, 6, batch_first=True), HIDDEN),
    "lstm, old weight norm": lambda: old(nn.utils.weight_norm, nn.LSTM(4, 6, batch_first=True), HIDDEN),
    "gru, old spectral norm": lambda: old(nn.utils.spectral_norm, nn.GRU(4, 6, batch_first=True), HIDDEN),
    "attention": SelfAttention,
}


def output_of(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        output = model(x)
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("name", CASES)
def test_a_constant_weight_is_folded_in_a_copy(name: str) -> None:
    torch.manual_seed(0)
    model, x = CASES[name](), torch.randn(2, 5, 4)
    model(x)  # in train mode: a hook leaves a tensor with a history, which deepcopy refuses
    model.eval()
    before, names = output_of(model, x), list(model.state_dict())

    plain = plain_model(model)

    assert plain is not model
    assert list(model.state_dict()) == names
    assert torch.equal(output_of(model, x), before)
    assert torch.allclose(output_of(plain, x), before, atol=1e-6)
    assert compressible(nn.Sequential(plain))
    assert not computed_weights(plain)
    assert all(parameter.requires_grad for parameter in plain.parameters())
    copy.deepcopy(plain)
    pickle.dumps(plain)
    model.train()
    model(x)  # the user's own still has its property
    assert fold_weights(copied(model))


def test_a_weight_that_changes_is_left_alone_and_named() -> None:
    model = nn.Sequential(user(nn.Linear(4, 4), by=Noise)).eval()
    assert plain_model(model) is model
    assert fold_weights(model) == {}
    (computed,) = computed_weights(model)
    assert (computed.name, computed.by, computed.fold) == ("0.weight", "Noise", None)


def test_weights_of_the_same_parts_stay_tied() -> None:
    a, b = (old(nn.utils.weight_norm, nn.Linear(4, 4)) for _ in range(2))
    b.weight_v, b.weight_g = a.weight_v, a.weight_g
    model = nn.Sequential(a, b)
    assert fold_weights(model) == {"0.weight": "WeightNorm", "1.weight": "WeightNorm"}
    assert a.weight is b.weight


def test_a_stored_model_is_loaded_into_the_users_architecture(tmp_path) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(CASES["weight norm"]()).eval(), torch.randn(2, 4)
    save_model(tmp_path / "m.safetensors", plain_model(model), {}, {})
    other = nn.Sequential(CASES["weight norm"]()).eval()
    load_model(tmp_path / "m.safetensors", other)
    assert torch.allclose(output_of(other, x), output_of(model, x), atol=1e-6)
