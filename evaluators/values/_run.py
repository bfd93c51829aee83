"""Forward passes of a model over a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor, nn

from ...compressors import forward
from ...compressors.anatomy import (
    NamedOutputs,
    OutputMasks,
    Outputs,
    joined,
    mapped,
    named_tensors,
    output_masks,
    real_values,
)
from ...errors import InputError
from ._preserved import preserved
from ._split import Inputs, Split

_AT_ONCE = 1 << 26
"""Numbers that are widened to double precision at a time: 512 MiB."""


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


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceOutputs:
    """Outputs of the original model on a split, computed once.

    outputs   (N, …) on the CPU, or several by name
    variance  variance of all outputs together: the scale of the relative squared error. Where there are several it is
              not used, for each has its own (`OutputDistance`)
    real      masks of outputs of which some positions are hidden (`output_masks`)
    """

    outputs: Outputs
    variance: float
    real: OutputMasks = field(default_factory=dict)

    @classmethod
    def compute(cls, model: nn.Module, split: Split, batch_size: int = 256) -> ReferenceOutputs:
        """Run the model; what the split's mask hides does not count."""
        outputs = run_split(model, split, batch_size)
        return cls.of(outputs, output_masks(outputs, split.inputs, split.mask, model=model))

    @classmethod
    def of(cls, outputs: Outputs, real: OutputMasks | None = None) -> ReferenceOutputs:
        """Make reference outputs from given outputs (N, …). `real` as in the class."""
        real = real or {}
        variance = _variance(real_values(outputs, real.get(""))) if isinstance(outputs, Tensor) else 1.0
        return cls(outputs, variance, real)

    def __len__(self) -> int:
        return len(self.outputs)

    def take(self, n: int) -> ReferenceOutputs:
        """Take the first `n` samples; the variance stays that of all, so that scores of the same sample stay the
        same.
        """
        return self.between(0, n)

    def between(self, start: int, stop: int) -> ReferenceOutputs:
        """Take the samples from `start` up to, not including, `stop`; otherwise like `take`."""
        rows = slice(start, stop)
        real = {name: mask[rows] for name, mask in self.real.items()}
        return ReferenceOutputs(self.outputs[rows], self.variance, real)


def _variance(values: Tensor) -> float:
    """Variance in double precision; of very many numbers some at a time, for these take twice the memory."""
    if values.numel() <= _AT_ONCE:
        return float(values.double().var(correction=0))
    flat = values.reshape(-1)
    mean = sum(float(part.double().sum()) for part in flat.split(_AT_ONCE)) / flat.numel()
    return sum(float((part.double() - mean).square().sum()) for part in flat.split(_AT_ONCE)) / flat.numel()


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
