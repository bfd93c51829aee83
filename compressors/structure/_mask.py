"""Temporary masks of units, as if they were removed, so that a trial needs no new model."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..anatomy import module_at
from ._passed import passed
from ._removal import Removal
from ._remove import cut_tensors, remove_, set_numbers_of

_SPREAD = ("running_var",)
"""Tensors that a mask leaves alone: a masked channel is zero before and after division by one of these."""


@contextmanager
def masked(model: nn.Module, removal: Removal) -> Iterator[nn.Module]:
    """Make `model` answer inside the block as `remove(model, removal)` would; it is restored afterwards.

    Rows and columns of what is cut are zero, and so are their biases and a batch norm's scale, shift and mean; a
    normalisation over cut channels (`Removal.norms`) sees those that are left; a skipped block hands its input on.
    Composes with `CompressedModel.apply`: enter this block inside that one, and what is masked is the variants'
    effective weights. One mask at a time.
    Raises `ConfigError` if the removal belongs to another model.
    """
    swaps = _swaps(model, removal)
    numbers = [
        (module_at(model, fqn), name, getattr(module_at(model, fqn), name))
        for fqn, values in removal.settings.items()
        for name in values
    ]
    hooks: list[Any] = []
    replaced: list[tuple[nn.Module, Any]] = []
    try:
        for fqn, (axis, kept) in removal.norms.items():
            norm = module_at(model, fqn)
            narrow = _narrow(norm, fqn, removal)
            hooks.append(norm.register_forward_hook(_NarrowNorm(narrow, axis, kept)))
        for fqn, kept in removal.routers.items():
            router = module_at(model, fqn)
            if isinstance(router, nn.Linear):
                hooks.append(router.register_forward_hook(_Closed(kept)))
            else:
                closed = _NarrowRouter(_narrow(router, fqn, removal), kept)
                hooks.append(router.register_forward_hook(closed, with_kwargs=True))
        for fqn, values in removal.settings.items():
            set_numbers_of(module_at(model, fqn), fqn, values)
        for value, _, after in swaps:
            value.data = after
        for fqn, n in removal.skipped.items():
            block = module_at(model, fqn)
            replaced.append((block, vars(block).get("forward")))
            vars(block)["forward"] = _Skipping(n)
        yield model
    finally:
        for hook in hooks:
            hook.remove()
        for value, before, _ in swaps:
            value.data = before
        for module, name, number in numbers:
            setattr(module, name, number)
        for block, forward in replaced:
            if forward is None:
                vars(block).pop("forward", None)
            else:
                vars(block)["forward"] = forward


def mask_of(shape: tuple[int, ...], axes: Mapping[int, tuple[int, ...]], like: Tensor) -> Tensor:
    """Mask of `shape`: ones where every axis keeps the position, else zeros. `axes` as in `Removal.tensors`."""
    mask = torch.ones([1] * len(shape), dtype=like.dtype, device=like.device)
    for axis, kept in axes.items():
        line = torch.zeros(shape[axis], dtype=like.dtype, device=like.device)
        line[list(kept)] = 1
        mask = mask * line.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return mask


def _swaps(model: nn.Module, removal: Removal) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Distinct masked tensors: each with its data before, and its data while masked."""
    return [
        (value, value.data, value.data * mask_of(tuple(value.shape), axes, value.data))
        for value, axes in cut_tensors(model, _without_spread(removal))
    ]


def _without_spread(removal: Removal) -> Removal:
    tensors = {name: axes for name, axes in removal.tensors.items() if name.rpartition(".")[2] not in _SPREAD}
    return dataclasses.replace(removal, tensors=tensors)


def _narrow(norm: nn.Module, fqn: str, removal: Removal) -> nn.Module:
    """Hook a normalisation over the kept channels alone, or a router of the kept experts alone."""
    narrow = copy.deepcopy(norm)
    narrow._forward_hooks.clear()
    narrow._forward_pre_hooks.clear()
    prefix = f"{fqn}." if fqn else ""
    own = {name.removeprefix(prefix): axes for name, axes in removal.tensors.items() if name.startswith(prefix)}
    norms = {"": removal.norms[fqn]} if fqn in removal.norms else {}
    attributes = {"": removal.attributes[fqn]} if fqn in removal.attributes else {}
    return remove_(narrow, Removal(tensors=own, norms=norms, attributes=attributes))


class _NarrowNorm:
    """Hook that normalises the kept channels among themselves and sets the others to zero."""

    def __init__(self, narrow: nn.Module, axis: int, kept: tuple[int, ...]) -> None:
        self.narrow, self.axis, self.kept = narrow, axis, list(kept)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        x: Tensor = args[0]
        kept = torch.tensor(self.kept, device=x.device)
        small = self.narrow(x.index_select(self.axis, kept))
        return torch.zeros_like(output).index_copy(self.axis, kept, small.to(output.dtype))


class _Closed:
    """Hook that keeps a router from choosing removed experts."""

    def __init__(self, kept: tuple[int, ...]) -> None:
        self.kept = list(kept)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        closed = torch.full_like(output, float("-inf"))
        closed[..., self.kept] = output[..., self.kept]
        return closed


class _NarrowRouter:
    """Hook that makes the narrowed router choose; its numbers of experts become those of the whole model."""

    def __init__(self, narrow: nn.Module, kept: tuple[int, ...]) -> None:
        self.narrow, self.kept = narrow, list(kept)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        answer = self.narrow(*args, **kwargs)
        parts = answer if isinstance(answer, tuple) else (answer,)
        kept = torch.tensor(self.kept)
        named = tuple(
            kept.to(part.device)[part] if isinstance(part, Tensor) and not part.is_floating_point() else part
            for part in parts
        )
        return named if isinstance(answer, tuple) else named[0]


class _Skipping:
    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return passed(self.n, args, kwargs)
