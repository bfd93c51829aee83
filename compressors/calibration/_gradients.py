"""Gradients of the loss by each weight, from one backward pass: the mean, and the mean of the square."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from ..anatomy import Anatomy, Outputs, forward, preserved, weight_at
from ._statistics import Statistics

if TYPE_CHECKING:
    from collections.abc import Iterator

Loss = Callable[[Outputs, Any, Any], Tensor]
"""Loss function: (outputs, inputs, targets or None) -> the mean loss of these samples, a differentiable scalar."""

PASSES = 256
"""Largest number of backward passes for the mean square; more samples than that are taken several at a time."""


def drawn_answers(outputs: Tensor, generator: torch.Generator) -> Tensor:
    """Draw labels (positions,) from the distribution of a model whose logits are `outputs` (…, classes), classes last.

    The gradients of the cross-entropy with them have the Fisher information as their second moment.
    """
    chances = outputs.detach().float().softmax(dim=-1).cpu().reshape(-1, outputs.shape[-1])
    return torch.multinomial(chances, 1, generator=generator)[:, 0].to(outputs.device)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerGradients:
    """Gradients of one layer, both (2, out, n) float32: E[g] and E[g^2]; g is one sample's gradient by the weight as a
    matrix.
    """

    both: Tensor
    digest: str


class Gradients(Statistics):
    """Mapping fqn -> `LayerGradients`. Layers that share a weight share its gradients."""

    FORMAT = "paredown.gradients"
    WHAT = "gradients of the loss"

    def get(self, fqn: str) -> LayerGradients | None:
        """Gradients of a layer; None where none reaches it, or they are not finite. Raises `IntegrityError` if the file
        is damaged or gone.
        """
        found = self._find(fqn)
        return None if found is None else LayerGradients(both=found[0], digest=found[1])


def collect_gradients(
    model: nn.Module, batches: Iterable[tuple[Any, Any, int]], anatomy: Anatomy, loss: Loss
) -> Gradients:
    """Run forward and backward once over `batches` of (inputs, targets, number of samples); the model is left as it
    was.

    Of a batch of b samples the gradient is a mean, whose square is b times too small where the samples' gradients are
    independent: it is multiplied by b. Batches of one sample are exact; `PASSES` says how small they should be.
    Memory: three times the compressible weights in float32, and the activations of one batch.
    Raises `InputError` if there is no batch, if the loss is no finite scalar, or depends on none of the weights.
    """
    parameters: dict[int, tuple[str, nn.Parameter]] = {}
    aliases: dict[str, str] = {}
    for layer in anatomy.layers:
        weight = weight_at(model, layer.fqn)
        first, _ = parameters.setdefault(id(weight), (layer.fqn, weight))
        if first != layer.fqn:
            aliases[layer.fqn] = first
    weights = [weight for _, weight in parameters.values()]
    mean = [torch.zeros_like(weight, dtype=torch.float32, device="cpu") for weight in weights]
    square = [torch.zeros_like(total) for total in mean]
    reached = [False] * len(weights)
    finite = [True] * len(weights)
    n = 0
    with preserved(model), differentiable(weights), torch.enable_grad():
        for inputs, targets, count in batches:
            value = loss(forward(model, inputs), inputs, targets)
            if value.dim() != 0 or not bool(torch.isfinite(value)):
                raise InputError(f"the loss must be one finite number, got {value!r}; check the data and the weights")
            for i, gradient in enumerate(torch.autograd.grad(value, weights, allow_unused=True)):
                if gradient is not None:
                    part = gradient.detach().float().cpu()
                    mean[i] += count * part
                    square[i] += (count * count) * part.square()
                    reached[i] = True
                    finite[i] = finite[i] and bool(torch.isfinite(part).all())
            n += count
    if n == 0:
        raise InputError("the loss' gradient needs at least one batch, got none; is the calibration split empty?")
    if not any(reached):
        raise InputError("the loss depends on none of the layers' weights; does the model detach its outputs?")
    tensors = {
        fqn: torch.stack([m.reshape(len(m), -1), s.reshape(len(s), -1)]) / n
        for (fqn, _), m, s, seen in zip(parameters.values(), mean, square, map(min, reached, finite), strict=True)
        if seen
    }
    return Gradients(tensors, {name: first for name, first in aliases.items() if first in tensors})


@contextmanager
def differentiable(weights: list[nn.Parameter]) -> Iterator[None]:
    """Make the parameters require gradients inside the block."""
    before = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight, wanted in zip(weights, before, strict=True):
            weight.requires_grad_(wanted)
