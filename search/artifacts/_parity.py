"""Does the exported model compute what PyTorch computes with the same weights and quantizers?

A runtime that multiplies in floating point may sum in another order, no more: 1e-4 of the largest output. One that
multiplies integers rounds elsewhere than the simulation: the same answer on 99.9 % of the samples, or it must be said
how nearly tied the others were, and why (`_why_apart.py`). The card of `evaluators/runtimes` states the same bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...evaluators import Measurement

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
    n            positions
    """

    apart: float
    same_answer: float | None
    margin: float
    n: int = 0

    @classmethod
    def of(cls, outputs: Tensor, expected: Tensor) -> Agreement:
        found, wanted = outputs.double(), expected.double()
        size = float(wanted.abs().max()) or 1.0
        apart = float((found - wanted).abs().max()) / size
        if wanted.dim() < 2 or wanted.shape[-1] < 2:
            return cls(apart=apart, same_answer=None, margin=0.0, n=len(wanted))
        found, wanted = found.reshape(-1, found.shape[-1]), wanted.reshape(-1, wanted.shape[-1])
        answer, right = found.argmax(dim=1, keepdim=True), wanted.argmax(dim=1, keepdim=True)
        lead = (wanted.gather(1, right) - wanted.gather(1, answer))[:, 0]
        same = float((answer == right).double().mean())
        return cls(apart=apart, same_answer=same, margin=float(lead.max()) / size, n=len(wanted))

    @property
    def n_other(self) -> int:
        """Positions with another answer."""
        return 0 if self.same_answer is None else round((1.0 - self.same_answer) * self.n)

    def verdict(self, *, integer: bool) -> tuple[bool, str]:
        """(whether the bound is kept, what was found beside it, in a clause). `integer`: activations are quantized."""
        apart = f"outputs within {self.apart:.1e} of PyTorch's"
        if not integer or self.same_answer is None:
            kept = self.apart <= EXACT
            return kept, f"{apart} ({'' if kept else 'missed: '}at most {EXACT:.0e} is expected)"
        kept = self.same_answer >= SAME_ANSWER or self.apart <= EXACT
        said = f"{apart}, the same answer on {100 * self.same_answer:.2f} % of {self.n}"
        said += f" ({'' if kept else 'missed: '}{100 * SAME_ANSWER:g} % is expected of integers)"
        if self.n_other:
            said += f"; where it differs the expected answer led by {self.margin:.1e} at most"
        return kept, said

    def metrics(self, split: str) -> dict[str, Measurement]:
        """`runtime_apart`, and `runtime_same_answer` where there are answers."""
        from ...evaluators.quality import wilson

        found = {"runtime_apart": Measurement(value=self.apart, unit="share", split=split, n=self.n)}
        if self.same_answer is not None:
            low, high = wilson(self.n - self.n_other, self.n)
            found["runtime_same_answer"] = Measurement(
                value=self.same_answer, low=low, high=high, unit="fraction", split=split, n=self.n
            )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """What an artifact's outputs are to PyTorch's.

    kept     the bound of its kind (`Agreement.verdict`)
    broken   it is not kept, and integers are no excuse
    text     what was found, the bound, and why where it is missed
    metrics  of `Agreement.metrics`
    """

    kept: bool
    broken: bool
    text: str
    metrics: dict[str, Measurement]
