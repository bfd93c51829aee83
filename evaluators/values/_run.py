"""Forward passes of a model over a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from ...compressors import forward
from ...compressors.anatomy import (
    NamedOutputs,
    Outputs,
    joined,
    mapped,
    named_tensors,
)
from ...errors import InputError
from ._preserved import preserved
from ._split import Inputs, Split


def run_split(model: nn.Module | Callable[[Inputs], Outputs], split: Split, batch_size: int = 256) -> Outputs:
    """Outputs of `model` on all N samples: (N, …) on the CPU, half precision widened to float32.

    A model of several outputs gives them by name, without those whose axis 0 is not the sample.

    The model runs in eval mode, without gradients, on the device of its own parameters; `preserved` lists the state
    that is restored. Raises `InputError` where an output's axis 0 is not the sample.
    """
    return joined(list(run_batches(model, split, batch_size)))


def run_batches(
    model: nn.Module | Callable[[Inputs], Outputs], split: Split, batch_size: int = 256
) -> Iterator[Outputs]:
    """Run like `run_split`, and yield one batch's outputs at a time, so that a language model's logits need not all be
    in memory.

    `model` is a module, or any callable from inputs to outputs (a runtime's `Session.run`). Between two batches the
    model is as it was found: a caller may stop early.
    """
    for inputs, _ in split.batches(batch_size):
        yield _checked(_run(model, inputs), inputs, split)


def _run(model: nn.Module | Callable[[Inputs], Outputs], inputs: Inputs) -> Outputs:
    if not isinstance(model, nn.Module):
        return model(inputs)
    with preserved(model):
        return forward(model, moved(inputs, device_of(model)))


def _checked(outputs: Outputs, inputs: Inputs, split: Split) -> Outputs:
    n = _length(inputs)
    named = named_tensors(outputs)
    kept = [name for name, tensor in named.items() if tensor.dim() > 0 and tensor.shape[0] == n]
    if not kept:
        came = ", ".join(f"{name} {tuple(tensor.shape)}".strip() for name, tensor in named.items())
        raise InputError(
            f"the model must give one output for each sample: expected ({n}, …) for a batch of {n} of the {split.name} "
            f"split, got {came}; axis 0 must be the sample"
        )
    if isinstance(outputs, NamedOutputs) and len(kept) < len(named):
        outputs = outputs.only(kept)
    return mapped(outputs, _plain)


def _plain(outputs: Tensor) -> Tensor:
    outputs = outputs.detach().cpu()
    return outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs


def _length(inputs: Inputs) -> int:
    if isinstance(inputs, dict):
        inputs = tuple(inputs.values())
    return int(inputs[0].shape[0] if isinstance(inputs, tuple) else inputs.shape[0])


def device_of(model: nn.Module) -> torch.device:
    for tensor in chain(model.parameters(), model.buffers()):  # the first one says it: the others are not gathered
        return tensor.device
    return torch.device("cpu")


def moved(inputs: Inputs, device: torch.device) -> Inputs:
    if isinstance(inputs, dict):
        return {key: part.to(device) for key, part in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(part.to(device) for part in inputs)
    return inputs.to(device)
