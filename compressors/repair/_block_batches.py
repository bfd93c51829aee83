"""Data of block reconstruction: a block's inputs and target in one batch, taken from passes of the model."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from ..anatomy import (
    OutputMasks,
    Outputs,
    calls_made,
    forward,
    output_masks,
    own_scales,
    packed,
    packed_mask,
    real_logits,
    real_values,
    temporary_hooks,
)
from ..calibration import drawn_answers

_DRAWS = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BlockBatch:
    """Inputs and target of one block in one batch.

    number  of the batch
    target  the original's output
    weight  weight of each number of the output in the error
    made    calls of the pass before the block, of modules in it (`anatomy.calls_made`)
    """

    number: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    target: Tensor
    weight: Tensor
    made: dict[str, int]

    def error(self, output: Tensor) -> Tensor:
        """Weighted squared error of a sample, on average."""
        return ((output - self.target).square() * self.weight).sum() / len(output)


def block_target(
    model: nn.Module, module: nn.Module, inputs: object, divergence: str, generator: torch.Generator,
    *, class_axis: int = -1, scales: Mapping[str, float] | None = None, mask: str | None = None,
) -> tuple[Tensor, Tensor] | None:  # fmt: skip
    """(output of the module, mean square of the divergence's gradient by it) of the present model.

    None where the module is not called. `class_axis` is the axis of the outputs' classes, for "kl". Several outputs
    are compared by their squared error, each times its factor in `scales`. What the mask of this name hides
    (`anatomy.positions`) is not compared, so an output that only hidden ones read has no weight. Raises `InputError`
    where the model's outputs do not depend on the module.
    """
    given: list[Tensor] = []

    def cut(module: nn.Module, args: object, output: Tensor) -> Tensor:
        given.append(output.detach().clone().requires_grad_())
        return given[0].clone()  # later modules may write into it

    with temporary_hooks() as hooks, torch.enable_grad():
        hooks.append(module.register_forward_hook(cut))
        outputs = forward(model, inputs)
        if not given:
            return None
        weight = torch.zeros_like(given[0])
        real = output_masks(outputs, inputs, mask, model=model)
        for _ in range(_DRAWS):
            product = _drawn(outputs, real, (divergence, class_axis, scales), generator)
            if not product.requires_grad:
                raise InputError("the model's outputs do not depend on a block's output, or have no gradient by it")
            (gradient,) = torch.autograd.grad(product, given, retain_graph=True)
            weight += gradient.square() / _DRAWS
    return given[0].detach().float(), weight.detach().float()


def _drawn(
    outputs: Outputs, real: OutputMasks, distance: tuple[str, int, Mapping[str, float] | None],
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """Scalar whose gradient g has E[g g'] = the Hessian of the divergence by the outputs, up to a factor."""
    divergence, class_axis, scales = distance
    several = not isinstance(outputs, Tensor)
    if isinstance(outputs, Tensor):
        z, where = outputs.float(), real.get("")
    else:
        factors = scales or own_scales(outputs)
        z, where = packed(outputs, factors, real), packed_mask(outputs, factors, real)
    if divergence != "kl" or several:
        z = real_values(z, where)
        signs = torch.randint(0, 2, z.shape, generator=generator).mul_(2).sub_(1)
        return (signs.to(z) * z).sum()
    z, where = real_logits(z, where, class_axis)
    z = z if where is None else z[where]
    answers = drawn_answers(z, generator)
    return z.reshape(-1, z.shape[-1]).log_softmax(-1).gather(1, answers[:, None]).sum()


class _Reached(Exception):
    """Stop of a pass whose rest need not run."""


def block_call(
    model: nn.Module, module: nn.Module, inputs: object
) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, int], torch.Size | None]:
    """(args, kwargs, `anatomy.calls_made`) at the module's call, and the shape of its output; None for the shape where
    it is not called.
    """
    seen: list[tuple[tuple[Any, ...], dict[str, Any], dict[str, int]]] = []
    shapes: list[torch.Size] = []

    def catch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append((copied(args), copied(kwargs), calls_made(module)))

    def end(module: nn.Module, args: object, output: Tensor) -> None:
        shapes.append(output.shape)
        raise _Reached

    with temporary_hooks() as hooks, suppress(_Reached):
        hooks.append(module.register_forward_pre_hook(catch, with_kwargs=True, prepend=True))
        hooks.append(module.register_forward_hook(end))
        forward(model, inputs)
    return (*seen[0], shapes[0]) if shapes else ((), {}, {}, None)


def copied(value: Any) -> Any:
    """Copy with its own tensors, as a module may write into its inputs."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return tuple(copied(item) for item in value) if type(value) is tuple else value
