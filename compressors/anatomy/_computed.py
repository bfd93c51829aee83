"""Weights that are computed from other parameters, made plain where they are constant in eval mode.

Weight norm, spectral norm, `torch.nn.utils.prune` and the parametrizations of `torch.nn.utils.parametrize` are known.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ._forward import preserved
from ._layers import same_tensor

_LOADER = "_weight_norm_compat_hook"
"""Hook with which `parametrizations.weight_norm` reads the names of the older weight norm."""

Key = tuple[tuple[object, ...], ...]
"""Tensors that a weight is computed from."""

_HOOKS: tuple[tuple[type, str, tuple[str, ...], Callable[[nn.Module, str], object]], ...] = (
    (WeightNorm, "name", ("_g", "_v"), remove_weight_norm),
    (SpectralNorm, "name", ("_orig", "_u", "_v"), remove_spectral_norm),
    (prune.BasePruningMethod, "_tensor_name", ("_orig", "_mask"), prune.remove),
)
"""Hook of PyTorch, its attribute that names the tensor, ends of the names of what it reads, and what removes it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Computed:
    """One tensor of a module that is computed from others.

    name   in the model: "conv.weight"
    by     names of the classes that compute it
    parts  names in the model of what it is computed from
    fold   makes it plain; None where it is not constant
    """

    name: str
    by: str
    module: nn.Module
    parts: tuple[str, ...]
    key: Key
    fold: Callable[[], None] | None


def computed_weights(model: nn.Module) -> list[Computed]:
    """Tensors of the model that are computed from others in each forward pass, in the order of `named_modules`.

    The model is left as it was. Parametrizations are evaluated twice in eval mode, to see whether they are constant.
    """
    with preserved(model):
        return [found for fqn, module in model.named_modules() for found in (*_hooked(fqn, module), *_own(fqn, module))]


def fold_weights(model: nn.Module) -> dict[str, str]:
    """Make the computed weights of the model plain parameters, in place, and return name -> class that computed it.

    Those that are not constant in eval mode are left as they are. The outputs in eval mode stay the same. Weights that
    were computed from the same tensors, and are equal, become one parameter.
    """
    folded: dict[str, str] = {}
    plain: dict[Key, nn.Parameter] = {}
    for computed in computed_weights(model):
        if computed.fold is None:
            continue
        computed.fold()
        leaf = computed.name.rpartition(".")[2]
        weight = computed.module._parameters.get(leaf)
        if weight is not None:
            same = plain.setdefault(computed.key, weight)
            shared = same if same.shape == weight.shape and torch.equal(same, weight) else weight
            setattr(computed.module, leaf, shared)  # a recurrent layer keeps a list of its weights, and sees this
        folded[computed.name] = computed.by
    return folded


def plain_model(model: nn.Module) -> nn.Module:
    """Return the model itself where no weight is computed, else a copy with plain weights."""
    if not any(computed.fold for computed in computed_weights(model)):
        return model
    own = copied(model)
    fold_weights(own)
    return own


def copied(model: nn.Module, *, shares_weights: bool = False) -> nn.Module:
    """Copy a model deeply, also where modules hold computed tensors, which `copy.deepcopy` refuses.

    shares_weights  parameters of the copy are new objects on the same memory, so that the weights are not copied
    """
    memo: dict[int, object] = {
        id(value): value.detach().clone()
        for module in model.modules()
        for held in vars(module).values()
        for value in (held if isinstance(held, list) else [held])  # a recurrent layer keeps a list of its weights
        if isinstance(value, Tensor) and not value.is_leaf
    }
    if shares_weights:
        memo |= {id(each): nn.Parameter(each.detach(), requires_grad=False) for each in model.parameters()}
    return copy.deepcopy(model, memo)


def _hooked(fqn: str, module: nn.Module) -> Iterator[Computed]:
    """Weights that a forward pre-hook of PyTorch computes. The last hook comes first: earlier ones may read from it."""
    for hook in reversed(list(module._forward_pre_hooks.values())):
        known = next((known for known in _HOOKS if isinstance(hook, known[0])), None)
        if known is None:
            continue
        _, attribute, ends, remove = known
        leaf: str = getattr(hook, attribute)
        tensors = [getattr(module, leaf + end) for end in ends]
        yield Computed(
            name=_joined(fqn, leaf), by=type(hook).__name__, module=module, key=tuple(map(same_tensor, tensors)),
            parts=tuple(_joined(fqn, leaf + end) for end in ends),
            fold=_removed(remove, module, leaf, any(tensor.requires_grad for tensor in tensors)),
        )  # fmt: skip


def _removed(
    remove: Callable[[nn.Module, str], object], module: nn.Module, leaf: str, grad: bool
) -> Callable[[], None]:
    def folding() -> None:
        with torch.no_grad():
            remove(module, leaf)
        getattr(module, leaf).requires_grad_(grad)

    return folding


def _own(fqn: str, module: nn.Module) -> Iterator[Computed]:
    """Parametrized tensors of a module. They are folded together: the class of the module changes once."""
    if not parametrize.is_parametrized(module):
        return
    lists = dict(module.parametrizations.items())  # type: ignore[operator, union-attr]
    constant = all(_is_constant(each) for each in lists.values())
    values: dict[str, Tensor] = {leaf: each() for leaf, each in lists.items()} if constant else {}
    for n, (leaf, each) in enumerate(lists.items()):
        tensors = [*each.parameters(), *each.buffers()]
        inside = _joined(fqn, f"parametrizations.{leaf}")
        yield Computed(
            name=_joined(fqn, leaf), module=module, key=tuple(map(same_tensor, tensors)),
            by=", ".join(type(part).__name__.lstrip("_") for part in each),
            parts=tuple(f"{inside}.{name}" for name in each.state_dict()),
            fold=(_unparametrized(module, values) if n == 0 else _nothing) if constant else None,
        )  # fmt: skip


def _is_constant(computing: nn.Module) -> bool:
    """Evaluate a list of parametrizations twice, with other random numbers, and compare results and state."""
    before = {name: tensor.clone() for name, tensor in computing.state_dict().items()}
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)  # `preserved` restores the random state
        results.append(computing())
    after = computing.state_dict()
    changed = [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]
    for name in changed:
        after[name].copy_(before[name])
    return not changed and torch.equal(*results)


def _unparametrized(module: nn.Module, values: dict[str, Tensor]) -> Callable[[], None]:
    """Give the module plain tensors in place of its parametrizations.

    `remove_parametrizations` would delete a property of the class, which deep copies of the module share.
    """

    def folding() -> None:
        lists, plain_class = module.parametrizations, parametrize.type_before_parametrizations(module)
        kinds = {leaf: list(lists[leaf].parameters()) for leaf in values}  # type: ignore[index, union-attr]
        del module._modules["parametrizations"]
        module.__class__ = plain_class
        for key, hook in tuple(module._load_state_dict_pre_hooks.items()):
            if _LOADER in getattr(getattr(hook, "hook", hook), "__qualname__", ""):  # it cannot be pickled
                del module._load_state_dict_pre_hooks[key]
        for leaf, value in values.items():
            value = value.detach().clone()
            if kinds[leaf]:
                wanted = any(parameter.requires_grad for parameter in kinds[leaf])
                module.register_parameter(leaf, nn.Parameter(value, requires_grad=wanted))
            else:
                module.register_buffer(leaf, value)

    return folding


def _nothing() -> None:
    """Folded together with another tensor of the same module."""


def _joined(fqn: str, leaf: str) -> str:
    return f"{fqn}.{leaf}" if fqn else leaf
