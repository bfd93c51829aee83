"""Layers that run and influence none of the compared outputs: a pooler that nobody reads, a head for training alone.

What it does   one backward pass from the outputs: a layer whose output has no gradient path to them is suspected.
               A suspect is confirmed where noise in place of its output changes no output, because a path may go
               through whole numbers (a router's choice, a code book) that have no gradient. Where the model cannot be
               differentiated, every layer is a suspect
Cost           one forward and one backward pass, and a few forward passes for the suspects, on the samples given
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ._anatomy import LayerInfo
from ._forward import forward, module_at, preserved, temporary_hooks
from ._layers import runs_in, weight_at
from ._outputs import compared_tensors

_SCALES = (1.0, 3.0, 30.0, 0.3, 3.0, 100.0)
"""Noise that stands for an output, in multiples of its own standard deviation; one of each is tried."""


def without_effect(
    model: nn.Module,
    inputs: object,
    layers: Sequence[LayerInfo],
    wider: object | None = None,
    compared: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Fqns of the layers that run on `inputs` (see `forward`) and change none of the compared outputs.

    The model is left as it was. A layer that does not run is not among them. Where a perturbed model fails, the layer
    counts as one that has an effect.

    wider     more samples, on which suspects are confirmed once more
    compared  names of the compared outputs of a model with several; None: all of floating point
    """
    with preserved(model):
        suspects = _without_gradient(model, inputs, layers, compared)
        for samples in (inputs,) if wider is None else (inputs, wider):
            suspects = _confirmed(model, samples, suspects, compared) if suspects else []
    return tuple(layer.fqn for layer in suspects)


def _confirmed(
    model: nn.Module, inputs: object, suspects: Sequence[LayerInfo], compared: Sequence[str] | None
) -> list[LayerInfo]:
    """Suspects that change nothing where noise stands for what they give."""
    run = partial(_run, model, inputs, compared)
    expected = run()
    if not _same(expected, run()):  # it answers differently each time, so nothing can be said
        return []
    if _is_idle(model, run, suspects, expected):
        return list(suspects)
    return [layer for layer in suspects if _is_idle(model, run, [layer], expected)]


def _without_gradient(
    model: nn.Module, inputs: object, layers: Sequence[LayerInfo], compared: Sequence[str] | None
) -> list[LayerInfo]:
    """Layers that ran, and to which no gradient flows; all that ran where the model cannot be differentiated."""
    probes: dict[str, list[Tensor]] = {layer.fqn: [] for layer in layers}
    ran: set[nn.Module] = set()

    def watch(fqn: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: object, output: object) -> object:
            if not isinstance(output, Tensor) or not output.is_floating_point():
                return None
            probe = output.new_zeros(()).requires_grad_(torch.is_grad_enabled())
            probes[fqn].append(probe)
            return output + probe

        return hook

    fused = [layer for layer in layers if layer.is_fused]
    for layer in fused:
        probes[layer.fqn].append(weight_at(model, layer.fqn))

    def note_run(module: nn.Module, args: object, output: object) -> None:
        ran.add(module)

    try:
        with temporary_hooks() as hooks, _requiring_grad([probes[layer.fqn][0] for layer in fused]):
            for layer in layers:
                hook = note_run if layer.is_fused else watch(layer.fqn)
                hooks.append(runs_in(model, layer).register_forward_hook(hook))
            with torch.enable_grad():
                found = compared_tensors(forward(model, inputs), compared).values()
                outputs = [tensor for tensor in found if tensor.requires_grad]
                reached = _reached(outputs, [probe for each in probes.values() for probe in each])
    except (RuntimeError, NotImplementedError):  # an operator without gradient, or one in place: noise decides
        reached = set()
    seen = [layer for layer in layers if probes[layer.fqn] and (not layer.is_fused or runs_in(model, layer) in ran)]
    return [layer for layer in seen if not any(id(probe) in reached for probe in probes[layer.fqn])]


def _reached(outputs: Sequence[Tensor], probes: Sequence[Tensor]) -> set[int]:
    """Identities of the probes that the outputs depend on; a gradient of zero is a dependence."""
    wanted = list({id(probe): probe for probe in probes if probe.requires_grad}.values())
    if not outputs or not wanted:
        return set()
    directions = [torch.ones_like(output) for output in outputs]
    gradients = torch.autograd.grad(outputs, wanted, directions, allow_unused=True)
    return {id(probe) for probe, gradient in zip(wanted, gradients, strict=True) if gradient is not None}


@contextmanager
def _requiring_grad(weights: Iterable[Tensor]) -> Iterator[None]:
    held = [(weight, weight.requires_grad) for weight in weights]
    try:
        for weight, _ in held:
            weight.requires_grad_(True)
        yield
    finally:
        for weight, before in held:
            weight.requires_grad_(before)


def _is_idle(
    model: nn.Module, run: Callable[[], list[Tensor]], layers: Sequence[LayerInfo], expected: Sequence[Tensor]
) -> bool:
    """Tell whether noise in place of what these layers give changes nothing."""
    for n, scale in enumerate(_SCALES):
        try:
            with _noise(model, layers, scale, n):
                outputs = run()
        except Exception:  # such as an index out of range: somebody reads the layer
            return False
        if not _same(expected, outputs):
            return False
    return True


@contextmanager
def _noise(model: nn.Module, layers: Sequence[LayerInfo], scale: float, seed: int) -> Iterator[None]:
    """Replace what the layers give by noise; of weights inside a larger operator, the weights themselves."""
    generator = torch.Generator().manual_seed(seed)

    def noisy(like: Tensor) -> Tensor:
        drawn = torch.randn(like.shape, generator=generator).to(like)
        spread = like.detach().float().nan_to_num(0.0, 0.0, 0.0).std(correction=0).clamp(min=1e-2)
        return drawn * (scale * spread).to(like)

    def hook(module: nn.Module, args: object, output: object) -> object:
        return noisy(output) if isinstance(output, Tensor) and output.is_floating_point() else None

    held: list[tuple[nn.Parameter, Tensor]] = []
    try:
        with temporary_hooks() as hooks:
            for layer in layers:
                if layer.is_fused:
                    weight = weight_at(model, layer.fqn)
                    held.append((weight, weight.data))
                    weight.data = noisy(weight.data)
                else:
                    hooks.append(module_at(model, layer.fqn).register_forward_hook(hook))
            yield
    finally:
        for weight, data in reversed(held):
            weight.data = data


def _run(model: nn.Module, inputs: object, compared: Sequence[str] | None) -> list[Tensor]:
    """Outputs of one run from the same random state as every other."""
    torch.manual_seed(0)  # `preserved` restores the random state
    return [tensor.detach().clone() for tensor in compared_tensors(forward(model, inputs), compared).values()]


def _same(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Compare outputs bit for bit; NaN equals NaN."""
    if [tensor.shape for tensor in some] != [tensor.shape for tensor in others]:
        return False
    return all(bool(((a == b) | ((a != a) & (b != b))).all()) for a, b in zip(some, others, strict=True))
