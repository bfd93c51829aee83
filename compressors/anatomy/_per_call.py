"""Hooks for modules that run several times in one forward of the model: each call has one of its own.

A call is told by its number since the model's own forward began, so a pass that failed, or was stopped, has no effect
on the next. Who runs a part of a pass only says which calls it left out (`skip_calls`), or which came before
(`calls_made`, `continue_from`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from ._forward import module_at

PreHook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]


class PerCall:
    """Forward pre-hook that gives the n-th call to the n-th of `hooks`, and further calls to `further`.

    A plain object, so that models can be deep-copied. `restart` is a pre-hook of the model.
    """

    def __init__(self, hooks: Sequence[PreHook], further: PreHook) -> None:
        self.hooks, self.further = tuple(hooks), further
        self.n_made = 0

    def restart(self, model: nn.Module, args: tuple[Any, ...]) -> None:
        self.n_made = 0

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        n, self.n_made = self.n_made, self.n_made + 1
        hook = self.hooks[n] if n < len(self.hooks) else self.further
        return hook(module, args, kwargs)


def hook_each_call(model: nn.Module, fqn: str, hooks: Sequence[PreHook], further: PreHook) -> list[RemovableHandle]:
    """Install a `PerCall` before the module `fqn` of `model`, until the handles are removed."""
    each = PerCall(hooks, further)
    return [
        model.register_forward_pre_hook(each.restart, prepend=True),
        module_at(model, fqn).register_forward_pre_hook(each, with_kwargs=True),
    ]


def skip_calls(module: nn.Module, n: int) -> None:
    """Count `n` calls of this module that a replay leaves out."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, PerCall):
            hook.n_made += n


def calls_made(module: nn.Module) -> dict[str, int]:
    """Name of each module below, or "", that has a `PerCall` -> number of its calls so far."""
    return {
        name: hook.n_made
        for name, part in module.named_modules()
        for hook in part._forward_pre_hooks.values()
        if isinstance(hook, PerCall)
    }


def continue_from(module: nn.Module, made: Mapping[str, int]) -> None:
    """Set the numbers that `calls_made` gave, before `module` is run by itself."""
    for name, n_made in made.items():
        for hook in module.get_submodule(name)._forward_pre_hooks.values():
            if isinstance(hook, PerCall):
                hook.n_made = n_made
