"""Data that scores of units need beside the weights: activations and gradients on calibration data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import SpecError
from ..anatomy import (
    Inputs,
    NamedOutputs,
    OutputMasks,
    Outputs,
    classes_last,
    forward,
    masked_batch,
    module_at,
    output_masks,
    own_scales,
    packed,
    packed_mask,
    preserved,
    primary,
    primary_name,
    real_logits,
    real_rows,
    real_values,
    temporary_hooks,
)
from ..calibration import differentiable, drawn_answers
from ._sets import CoupledSet, Member
from ._watch import Attended, watch

Loss = Callable[[Tensor, Tensor | None], Tensor]
"""Loss function: (outputs, targets or None) -> a scalar, summed (not averaged) over the samples."""


@dataclass(slots=True)
class UnitEvidence:
    """Evidence about one set, (n_units,) for each field, float64.

    taylor        mean over batches of |Σ w ∂L/∂w| over what reads the unit: to first order, what the loss changes by if
                  it is not read (exactly Σ a ∂L/∂a; Molchanov et al. 2019, Michel et al. 2019). Where labels are drawn
                  the mean without the bars would be zero
    hessian       half the mean square of that sum: the second order with Fisher's matrix, whole for each unit
    hessian_diag  half of Σ w² E[g²]: the same with its diagonal (LeCun et al. 1990)
    activation    root mean square of the unit; None where none of its readers was seen (inside of PyTorch's attention)
    output        root mean square of what its readers make of it, E‖W_u a_u‖²; None likewise
    entropy       of a head's attention in nats; None for other sets
    """

    taylor: Tensor
    hessian: Tensor
    hessian_diag: Tensor
    activation: Tensor | None
    output: Tensor | None
    entropy: Tensor | None = None


def collect(
    model: nn.Module, batches: Iterable[Inputs], sets: Sequence[CoupledSet], *, targets: Iterable[Tensor] | None = None,
    loss: Loss | None = None, seed: int = 0, class_axis: int = -1, scales: Mapping[str, float] | None = None,
    mask: str | None = None,
) -> dict[str, UnitEvidence]:  # fmt: skip
    """Collect evidence: name of each set -> its evidence. The model is left as it was.

    targets  one per batch: whole numbers for cross-entropy over the classes, floats for squared error. None: labels
             are drawn from the model's own softmax, so that squared gradients are Fisher's information and batches may
             be of any size (scores of different samples have mean zero); several outputs are drawn a direction in
             which they change, which does the same for a squared error
    loss     for models that need neither of these
    class_axis  axis of the outputs on which the classes lie; `loss` gets the outputs as they are
    scales   name -> factor of the outputs that are compared, where there are several; None: all, each over its own
             standard deviation
    mask     name of the mask among the inputs (`anatomy.positions`); what it hides counts nowhere, but in `loss`

    Raises `SpecError` where there are no batches.
    """
    generator = torch.Generator().manual_seed(seed)
    tallies = {coupled.name: _Tally(model, coupled) for coupled in sets}
    watched = {fqn: tally for tally in tallies.values() for fqn in tally.readers}
    parameters = {id(p): p for tally in tallies.values() for p, _ in tally.parameters}
    given = iter(targets) if targets is not None else None
    n = 0
    with temporary_hooks() as hooks, differentiable(list(parameters.values())):
        for fqn in watched:
            readers = [tally for tally in tallies.values() if fqn in tally.readers]
            hooks.append(module_at(model, fqn).register_forward_pre_hook(_looking(fqn, readers), with_kwargs=True))
        for batch in batches:
            with preserved(model), torch.enable_grad():
                answers = None if given is None else next(given)
                with masked_batch(model, batch, mask):
                    outputs = forward(model, batch)
                masks = output_masks(outputs, batch, mask, model=model)
                scalar = _scalar(outputs, masks, answers, loss, class_axis, scales, generator)
                gradients = torch.autograd.grad(scalar, list(parameters.values()), allow_unused=True)
            by_id = dict(zip(parameters, gradients, strict=True))
            for tally in tallies.values():
                tally.see(by_id)
            n += 1
            heads = [coupled for coupled in sets if coupled.kind == "heads"]
            if heads:
                with masked_batch(model, batch, mask):
                    _entropies(model, batch, tallies, heads)
    if n == 0:
        raise SpecError("scores that look at data need at least one batch of it, got none")
    return {name: tally.evidence(n) for name, tally in tallies.items()}


def per_unit(value: Tensor, member: Member, n_units: int) -> Tensor:
    """Split a tensor by units: (n_units, everything else)."""
    width = member.width * len(member.offsets)
    order = [
        offset + unit * member.width + k
        for unit in range(n_units)
        for offset in member.offsets
        for k in range(member.width)
    ]
    axis = member.axis % value.ndim
    rows = value.movedim(axis, 0)[order]
    return rows.reshape(n_units, width * (rows[0].numel() if rows.ndim > 1 else 1))


class _Tally:
    def __init__(self, model: nn.Module, coupled: CoupledSet) -> None:
        self.coupled = coupled
        self.readers: dict[str, Member] = {}
        tensors = dict(model.named_parameters(remove_duplicate=False))
        self.parameters = [(tensors[m.tensor], m) for m in coupled.having("reads") if m.tensor in tensors]
        for member in coupled.having("reads"):
            fqn, _, leaf = member.tensor.rpartition(".")
            if (leaf == "weight" and isinstance(module_at(model, fqn), (nn.Linear, nn.Conv1d, nn.Conv2d))) or (
                leaf == "weight_ih_l0"
            ):
                self.readers[fqn] = member
        zeros = torch.zeros(coupled.n_units, dtype=torch.float64)
        self.sum, self.square, self.diagonal = zeros.clone(), zeros.clone(), zeros.clone()
        self.energy, self.output, self.seen = zeros.clone(), zeros.clone(), 0
        self.entropy: Tensor | None = None

    def see(self, gradients: Mapping[int, Tensor | None]) -> None:
        n = self.coupled.n_units
        total = torch.zeros(n, dtype=torch.float64)
        for parameter, member in self.parameters:
            gradient = gradients[id(parameter)]
            if gradient is None:
                continue
            product = per_unit(parameter.detach() * gradient, member, n).double().cpu()
            total += product.sum(dim=1)
            self.diagonal += product.square().sum(dim=1)
        self.sum += total.abs()
        self.square += total.square()

    def look(self, fqn: str, module: nn.Module, x: Tensor) -> None:
        member, n = self.readers[fqn], self.coupled.n_units
        parameter = module._parameters["weight_ih_l0" if isinstance(module, nn.RNNBase) else "weight"]
        assert parameter is not None
        weight = parameter.detach().double().cpu()
        if isinstance(module, (nn.Conv1d, nn.Conv2d)):
            real = real_rows(x.detach(), 1)
            real = real if real is not x and real.dim() < x.dim() else x.detach().movedim(1, -1)
            x = real.reshape(-1, module.groups, x.shape[1] // module.groups).flatten(0, 1)
        else:
            x = real_rows(x.detach())
        x = x.reshape(-1, x.shape[-1]).double().cpu()
        units = per_unit(x, Member(tensor="", axis=1, offsets=member.offsets, width=member.width), n)
        units = units.reshape(n, -1, x.shape[0])  # (unit, position in the unit, row)
        moments = units @ units.transpose(1, 2) / x.shape[0]
        self.energy += moments.diagonal(dim1=1, dim2=2).mean(dim=1)
        columns = per_unit(weight, member, n).reshape(n, units.shape[1], -1)  # (unit, position, out and kernel)
        self.output += (columns * (moments @ columns)).sum(dim=(1, 2))
        self.seen += 1

    def evidence(self, n: int) -> UnitEvidence:
        seen = max(1, self.seen)
        activation, output = (self.energy / seen).sqrt(), (self.output / seen).clamp(min=0).sqrt()
        return UnitEvidence(
            taylor=self.sum / n, hessian=self.square / (2 * n), hessian_diag=self.diagonal / (2 * n),
            activation=activation if self.seen else None, output=output if self.seen else None,
            entropy=None if self.entropy is None else self.entropy / n,
        )  # fmt: skip


def _looking(fqn: str, tallies: Sequence[_Tally]) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs["input"]
        x = x.data if isinstance(x, nn.utils.rnn.PackedSequence) else x
        for tally in tallies:
            tally.look(fqn, module, x)

    return hook


def _entropies(model: nn.Module, batch: Inputs, tallies: dict[str, _Tally], heads: Sequence[CoupledSet]) -> None:
    """Entropies of each set's attention. An attention belongs to the set whose maker ran last before it."""
    makers = {m.tensor.rpartition(".")[0]: coupled for coupled in heads for m in coupled.having("makes")}
    latest: CoupledSet | None = None
    for event in watch(model, batch, entropy=True):
        if not isinstance(event, Attended):
            latest = makers.get(event.fqn, latest)
        elif latest is not None and event.n_heads % latest.n_units == 0:
            tally, latest = tallies[latest.name], None
            mine = _of_units(event.entropy, tally.coupled)
            tally.entropy = mine if tally.entropy is None else tally.entropy + mine


def _scalar(
    outputs: Outputs, masks: OutputMasks, answers: Tensor | None, loss: Loss | None, class_axis: int,
    scales: Mapping[str, float] | None, generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """Loss of a batch; see `collect`."""
    if answers is None and loss is None and not isinstance(outputs, Tensor):
        return _direction(outputs, masks, scales, generator)
    mask = masks.get(primary_name(outputs) if isinstance(outputs, NamedOutputs) else "")
    outputs = primary(outputs)
    if loss is not None:
        logits = classes_last(outputs, class_axis)
        return loss(outputs, drawn_answers(logits, generator) if answers is None else answers)
    if answers is not None and answers.is_floating_point():
        return (real_values(outputs, mask) - real_values(answers, mask)).square().sum() / 2
    logits, where = real_logits(outputs, mask, class_axis)
    if where is not None:
        logits = logits[where]
        answers = answers[where] if answers is not None and answers.shape == where.shape else answers
    answers = drawn_answers(logits, generator) if answers is None else answers
    return functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), answers.reshape(-1), reduction="sum")


def _direction(
    outputs: Outputs, masks: OutputMasks, scales: Mapping[str, float] | None, generator: torch.Generator
) -> Tensor:
    """Outputs along random signs: the mean square of its gradients is Fisher's information of a squared error."""
    factors = own_scales(outputs) if scales is None else scales
    z, mask = packed(outputs, factors, masks), packed_mask(outputs, factors, masks)
    values = real_values(z, mask)
    signs = torch.randint(0, 2, values.shape, generator=generator).mul_(2).sub_(1).to(z)
    if mask is None:
        return (signs * values).sum() / math.sqrt(z.shape[1])
    counts = mask.sum(dim=1)
    shares = counts.clamp(min=1).double().rsqrt().to(z.dtype).repeat_interleave(counts)
    return (signs * values * shares).sum()


def _of_units(entropy: Tensor, coupled: CoupledSet) -> Tensor:
    """Mean entropy of each unit's heads, (n_units,). The projection after them reads them in their order."""
    read = coupled.having("reads")[0]
    head_dim = coupled.n_units * read.width * len(read.offsets) // len(entropy)
    heads = [sorted({at // head_dim for at in read.positions([unit])}) for unit in range(coupled.n_units)]
    return torch.stack([entropy[mine].mean() for mine in heads])
