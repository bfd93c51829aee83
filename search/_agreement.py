"""Does the exported model compute what PyTorch computes with the same weights and quantizers?

A runtime that multiplies in floating point may sum in another order, no more: 1e-4 of the largest output. One that
multiplies integers rounds elsewhere than the simulation: the same answer on 99.9 % of the samples, or it must be said
how nearly tied the others were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

EXACT = 1e-4
SAME_ANSWER = 0.999


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far outputs (N, …, classes) are from what was expected.

    apart        largest difference, as a share of the largest expected magnitude
    same_answer  share of the positions with the same largest class; None where there is one output
    margin       of the positions with another answer, the largest lead (as a share of the largest magnitude) that the
                 expected answer had over the one that came; 0 where all are the same
    """

    apart: float
    same_answer: float | None
    margin: float

    @classmethod
    def of(cls, outputs: Tensor, expected: Tensor) -> Agreement:
        found, wanted = outputs.double(), expected.double()
        size = float(wanted.abs().max()) or 1.0
        apart = float((found - wanted).abs().max()) / size
        if wanted.dim() < 2 or wanted.shape[-1] < 2:
            return cls(apart=apart, same_answer=None, margin=0.0)
        found, wanted = found.reshape(-1, found.shape[-1]), wanted.reshape(-1, wanted.shape[-1])
        answer, right = found.argmax(dim=1, keepdim=True), wanted.argmax(dim=1, keepdim=True)
        lead = (wanted.gather(1, right) - wanted.gather(1, answer))[:, 0]
        same = float((answer == right).double().mean())
        return cls(apart=apart, same_answer=same, margin=float(lead.max()) / size)

    def verdict(self, *, integer: bool) -> tuple[bool, str]:
        """(whether the bound is kept, what was found, in a clause). `integer`: activations are quantized."""
        apart = f"outputs within {self.apart:.1e} of PyTorch's"
        if self.apart <= EXACT:
            return True, apart
        if not integer or self.same_answer is None:
            return False, f"{apart}; at most {EXACT:.0e} is expected where nothing is rounded"
        answers = f"{apart}, the same answer on {100 * self.same_answer:.2f} %"
        if self.same_answer >= SAME_ANSWER:
            return True, answers
        return False, f"{answers}; where it differs the expected answer led by {self.margin:.1e} at most"
