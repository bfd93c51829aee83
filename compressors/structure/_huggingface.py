"""Config of a Hugging Face model after removal, so that `from_pretrained` loads it again."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ..anatomy import Inputs, compared_tensors, forward, preserved
from ._kept_experts import KeptExperts
from ._passed import Passed
from ._sets import CoupledSet

_LISTS = re.compile(r"^(.*)\.(\d+)$")
_KEYS = {
    "hidden": ("hidden_size", "d_model", "dim", "n_embd"),
    "neurons": ("intermediate_size", "d_ff", "hidden_dim", "ffn_dim", "n_inner"),
    "heads": ("num_attention_heads", "num_heads", "n_heads", "n_head"),
    "keys": ("num_key_value_heads",),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts"),
    "layers": ("num_hidden_layers", "num_layers", "n_layers", "n_layer"),
}


def reloadable(
    model: nn.Module, sets: Iterable[CoupledSet], kept: Mapping[str, Sequence[int]], inputs: Inputs
) -> nn.Module:
    """Make a model of the same class whose config describes the kept parts, with the weights of `model`.

    `remove` has cut `model` by `removal_of(…, sets, kept, …)`. Dropped blocks are taken out of their list and the
    others move up. The model is built from the changed config (by its own code, without weights). Its shapes and its
    outputs on `inputs` are compared before it is returned.

    Raises `ConfigError` for a model without a config, or where no config of its class describes the kept parts: layers
    of different width, or heads of a model that computes their width from its own (BERT).
    """
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "to_dict"):
        raise ConfigError(f"{type(model).__name__} has no Hugging Face config; save it by paredown's own format")
    state, dropped = _state(model)
    changed = copy.deepcopy(config)
    for name, value in _numbers(config, sets, kept, dropped).items():
        setattr(changed, name, value)
    if hasattr(changed, "layer_types") and changed.layer_types is not None and dropped:
        gone = {index for indices in dropped.values() for index in indices}
        changed.layer_types = [kind for i, kind in enumerate(changed.layer_types) if i not in gone]
    try:
        with torch.device("meta"):
            fresh = type(model)(changed)
    except Exception as error:  # the class's own code refuses the numbers; the reason is reported
        raise ConfigError(f"no config of {type(config).__name__} describes the kept parts: {error}") from error
    want = {name: tuple(value.shape) for name, value in fresh.state_dict().items()}
    have = {name: tuple(value.shape) for name, value in state.items()}
    if want != have:
        name = next(iter(sorted(set(want) ^ set(have)) or [n for n in want if want[n] != have[n]]))
        raise ConfigError(
            f"no config of {type(config).__name__} describes the kept parts: {name} is {have.get(name, 'not there')}, "
            f"and the config makes it {want.get(name, 'absent')}. Keep the same share of every layer, or use "
            "paredown's format"
        )
    with torch.random.fork_rng(devices=[]):
        built = type(model)(changed)
    built.load_state_dict(state)
    tie = getattr(built, "tie_weights", None)
    if callable(tie):
        tie()
    with preserved(model), preserved(built):
        expected, got = compared_tensors(forward(model, inputs)), compared_tensors(forward(built, inputs))
    for name, outputs in expected.items():
        apart, scale = float((outputs - got[name]).abs().max()), float(outputs.abs().mean())
        if not apart <= 1e-4 * scale + 1e-6:
            raise ConfigError(
                f"a {type(model).__name__} of the kept parts gives other outputs (by {apart:.2g}; outputs are about "
                f"{scale:.2g}): its class uses the changed numbers elsewhere too. Keep the width, or use paredown's "
                "format"
            )
    return built.train(model.training)


def _state(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """Weights with the indices of dropped blocks and experts closed up, and list of blocks -> dropped indices."""
    dropped: dict[str, list[int]] = {}
    experts: dict[str, list[int]] = {}
    for fqn, module in model.named_modules():
        if isinstance(module, KeptExperts):
            left = {int(name) for name in module._modules}
            experts[fqn] = [index for index in range(max(left)) if index not in left]
        if isinstance(module, Passed) and (match := _LISTS.match(fqn)):
            dropped.setdefault(match[1], []).append(int(match[2]))
    state = {}
    for name, value in model.state_dict().items():
        for home, gone in (*dropped.items(), *experts.items()):
            if name.startswith(f"{home}."):
                index, _, rest = name.removeprefix(f"{home}.").partition(".")
                name = f"{home}.{int(index) - sum(i < int(index) for i in gone)}.{rest}"
        state[name] = value
    return state, dropped


def _numbers(
    config: Any, sets: Iterable[CoupledSet], kept: Mapping[str, Sequence[int]], dropped: Mapping[str, list[int]]
) -> dict[str, int]:
    """Config key -> its new number. Keys are known by their usual names and by the number that they had."""
    numbers: dict[str, int] = {}

    def say(kind: str, old: int, new: int) -> None:
        for key in _KEYS[kind]:
            if getattr(config, key, None) == old and numbers.setdefault(key, new) != new:
                raise ConfigError(
                    f"{type(config).__name__}.{key} holds for every layer, and the layers keep {numbers[key]} and "
                    f"{new}; keep the same number everywhere, or use paredown's format"
                )

    for coupled in sets:
        new = len(kept.get(coupled.name, range(coupled.n_units)))
        if coupled.kind == "heads":
            keys = getattr(config, "num_key_value_heads", None) or coupled.n_units
            queries_alone = _width(coupled, "makes") == _width(coupled, "reads")
            for key in _KEYS["heads"]:
                old = getattr(config, key, None)
                if not isinstance(old, int) or old % coupled.n_units:
                    continue
                if coupled.n_units == keys or (queries_alone and old // keys == coupled.n_units):
                    say("heads", old, old // coupled.n_units * new)
            if coupled.n_units == keys and not queries_alone:
                say("keys", keys, new)
        elif coupled.kind in ("hidden", "neurons", "experts"):
            say(coupled.kind, coupled.n_units, new)
    for gone in dropped.values():
        for key in _KEYS["layers"]:
            old = getattr(config, key, None)
            if isinstance(old, int):
                say("layers", old, old - len(gone))
    return numbers


def _width(coupled: CoupledSet, role: str) -> int:
    """Rows, or columns, of the weights that one unit has: of a query head alone as many rows as columns."""
    return sum(len(m.offsets) * m.width for m in coupled.having(role) if m.tensor.endswith("weight"))
