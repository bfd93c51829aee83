"""Forward passes of a model that leave its state as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...errors import InputError
from ._outputs import Outputs, outputs_of

Inputs = Tensor | tuple[Any, ...] | Mapping[str, Any]
"""Inputs of a model: `model(x)`, `model(*x)` or `model(**x)`."""


def forward(model: nn.Module, inputs: object) -> Outputs:
    """Run `model` once on `inputs` and return its outputs: one tensor, or several by name (`outputs_of`).

    A Tensor is passed as the only argument, a tuple as the positional and a mapping as the keyword arguments. Train
    mode and grad mode are the caller's business. Raises `InputError` for other inputs, and for outputs without a
    tensor.
    """
    return outputs_of(called(model, inputs))


def called(model: Callable[..., Any], inputs: object) -> Any:
    """Call `model` once on `inputs` (see `forward`), and return whatever it returns."""
    if isinstance(inputs, Tensor):
        return model(inputs)
    if isinstance(inputs, tuple):
        return model(*inputs)
    if isinstance(inputs, Mapping):
        return model(**inputs)
    raise InputError(
        f"the inputs of a model must be a tensor, a tuple (positional arguments) or a dict (keyword arguments), "
        f"got {type(inputs).__name__}"
    )


def classes_last(outputs: Tensor, class_axis: int) -> Tensor:
    """Outputs (N, …) with the axis of the classes moved to the end; the very same tensor where it is there already."""
    if class_axis in (-1, outputs.dim() - 1):
        return outputs
    return outputs.movedim(class_axis, -1)


def module_at(model: nn.Module, fqn: str) -> nn.Module:
    """Return the module of this full name; "" is the model itself. Raises `InputError` if there is none."""
    try:
        return model.get_submodule(fqn)
    except AttributeError as error:
        raise InputError(f"the model has no module {fqn!r}: {error}") from error


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Set eval mode and no gradients inside the block; restore train mode, grad mode and random state afterwards."""
    training = [(module, module.training) for module in model.modules()]  # each batch of a trial comes through here
    devices: list[int] = []
    if torch.cuda.is_initialized():
        devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    if any(was_training for _, was_training in training):
        model.eval()
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            yield
    finally:
        for module, was_training in training:
            if module.training != was_training:
                module.training = was_training


@contextmanager
def temporary_hooks() -> Iterator[list[RemovableHandle]]:
    """Yield an empty list for handles of hooks; these hooks are removed after the block, also after an error."""
    handles: list[RemovableHandle] = []
    try:
        yield handles
    finally:
        for handle in handles:
            handle.remove()


def in_double(inputs: Any) -> Any:
    """Same inputs with floating-point tensors in float64."""
    if isinstance(inputs, Tensor):
        return inputs.double() if inputs.is_floating_point() else inputs
    if isinstance(inputs, tuple):
        return tuple(in_double(value) for value in inputs)
    return {name: in_double(value) for name, value in inputs.items()} if isinstance(inputs, dict) else inputs


def batch_size(inputs: object) -> int:
    """Length of the first axis of the first tensor in `inputs`; 1 if there is no tensor."""
    values: list[Any]
    if isinstance(inputs, Mapping):
        values = list(inputs.values())
    else:
        values = list(inputs) if isinstance(inputs, tuple) else [inputs]
    for value in values:
        if isinstance(value, Tensor) and value.ndim > 0:
            return max(1, value.shape[0])
    return 1


def check_runs(model: nn.Module, inputs: object) -> None:
    """Run the model once in eval mode. Raises `InputError` where an argument of the forward is missing or unknown."""
    try:
        with preserved(model):
            forward(model, inputs)
    except TypeError as error:
        if "missing" not in str(error) and "unexpected keyword" not in str(error):
            raise
        raise InputError(
            f"{type(model).__name__} does not run on the inputs that it was given: {error}. Give every argument of its "
            f"forward, as a tuple or as a dict of its names"
        ) from error
