"""Trial of a coupled set: its masked and its removed model must agree."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from ..anatomy import Inputs, Outputs, compared_tensors, forward, in_double, preserved
from ._mask import masked
from ._removal import Removal, removal_of
from ._remove import remove
from ._sets import CoupledSet

_CLOSE = 1e-7
_CLOSE_IN_FLOAT = 1e-3


class Trier:
    """Double-precision copy of the model whose weights are moved a little, so that no agreement is by chance.

    Otherwise a zero batch-norm scale would hide any mistake before it.
    """

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        self.inputs, self.close = inputs, _CLOSE_IN_FLOAT
        self.model = _moved(copy.deepcopy(model))
        self.reference = self._run(self.model)
        try:
            double, wide = copy.deepcopy(self.model).double(), in_double(inputs)
            with preserved(double):
                reference = forward(double, wide)
            self.model, self.inputs, self.reference, self.close = double, wide, reference, _CLOSE
        except (RuntimeError, TypeError):
            pass  # a model that makes float32 tensors of its own runs in float32 only, and is compared less sharply

    def refuse(self, sets: Iterable[CoupledSet], *, skipped: dict[str, int] | None = None) -> str | None:
        """Reason why these sets cannot be cut together, as a clause; None if removed and masked model agree."""
        sets = tuple(sets)
        try:
            removal = removal_of(self.model, sets, {s.name: _half(s) for s in sets}, skipped)
            return self.differ(removal)
        except Exception as error:  # a model that cannot run when smaller may raise anything; the reason is reported
            return f"the model does not run without some of them: {_line(error)}"

    def differ(self, removal: Removal) -> str | None:
        with masked(self.model, removal):
            want = self._run(self.model)
        got = self._run(remove(self.model, removal))
        wanted, found, before = (compared_tensors(outputs) for outputs in (want, got, self.reference))
        if {name: part.shape for name, part in wanted.items()} != {name: part.shape for name, part in found.items()}:
            return "they are the model's output, or part of its shape"
        for name, part in wanted.items():
            scale = float(part.abs().mean()) + float((part - before[name]).abs().mean()) + 1e-30
            apart = float((part - found[name]).abs().max())
            if not apart <= self.close * scale:
                return f"masked and removed they differ by {apart:.2g} (outputs are about {scale:.2g})"
        if all(torch.equal(part, before[name]) for name, part in wanted.items()):
            return "nothing that the model answers depends on them"
        return None

    def _run(self, model: nn.Module) -> Outputs:
        with preserved(model):
            return forward(model, self.inputs)


def confirm(trier: Trier, proposals: Sequence[Sequence[CoupledSet]]) -> tuple[list[CoupledSet], dict[str, str]]:
    """First alternative that holds for each proposal (the likeliest first), and name -> reason where none does.

    All first choices are tried together first, which needs only one trial for a model without surprises.
    """
    firsts = [alternatives[0] for alternatives in proposals]
    if not firsts:
        return [], {}
    if trier.refuse(firsts) is None and len(firsts) > 1:
        return firsts, {}
    kept, left = [], {}
    for alternatives in proposals:
        reason = ""
        for coupled in alternatives:
            again = trier.refuse([coupled])
            if again is None:
                kept.append(coupled)
                break
            reason = reason or again
        else:
            left[alternatives[0].name] = reason
    if len(kept) > 1 and (reason_together := trier.refuse(kept)) is not None:
        together: list[CoupledSet] = []
        for coupled in kept:
            if trier.refuse([*together, coupled]) is None:
                together.append(coupled)
            else:
                left[coupled.name] = f"it cannot be cut along with the others: {reason_together}"
        kept = together
    return kept, left


def _half(coupled: CoupledSet) -> list[int]:
    """Every other unit and the last: no contiguous range at either end, so that a wrong offset shows."""
    n = coupled.n_units
    kept = [unit for unit in range(n) if unit % 2 == 0][: max(coupled.floor, n - 1)]
    return kept if len(kept) >= coupled.floor else list(range(coupled.floor))


def _moved(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if not value.is_floating_point() or not (isinstance(value, nn.Parameter) or name.endswith("running_mean")):
                continue
            scale = 0.1 * float(value.float().std(correction=0)) + 0.01
            value.add_((torch.randn(value.shape, generator=generator) * scale).to(value))
    return model


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}"
