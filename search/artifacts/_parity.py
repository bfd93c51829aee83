"""Parity: does the exported model compute what PyTorch computes with the same weights and quantizers?

A runtime that multiplies in floating point may sum in another order, and no more: 1e-4 of the largest output. A runtime
that multiplies integers rounds in other places than the simulation. It must give the same answer on 99.9 % of the
samples; otherwise the text says how nearly tied the others were, and why (`_explain_mismatch.py`). The card of
`evaluators/runtimes` states the same bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...evaluators import Measurement

if TYPE_CHECKING:
    from torch import Tensor

    from ...compressors.anatomy import Outputs
    from ...evaluators import OutputDistance, ReferenceOutputs

FLOAT_BOUND = 1e-4
"""Largest difference that another order of sums may make, as a share of the largest magnitude."""
SAME_ANSWER_BOUND = 0.999
"""Least share of the samples with the same answer, where a runtime multiplies integers."""

_CHUNK = 1 << 22
"""Numbers that are compared at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Difference between outputs (N, …) and the expected ones.

    max_difference  largest difference, as a share of the largest expected magnitude
    same_answer     share of the positions with the same largest class; None where there is one output, or no classes
    margin          largest lead that an expected answer had over another one that came instead, as a share of the
                    largest magnitude; 0 where all answers are the same
    n               number of positions
    worst           name of the output with the largest difference, of a model with several
    """

    max_difference: float
    same_answer: float | None
    margin: float
    n: int = 0
    worst: str = ""

    @classmethod
    def of_outputs(cls, outputs: Outputs, expected: ReferenceOutputs, distance: OutputDistance) -> Parity:
        """Compare all floating-point outputs of two models: the largest difference of any, and the answers of the
        first output of `distance`. What the masks of the expected outputs hide is not compared.
        """
        return cls.of_pairs([(outputs, expected)], distance)

    @classmethod
    def of_pairs(cls, pairs: Iterable[tuple[Outputs, ReferenceOutputs]], distance: OutputDistance) -> Parity:
        """Compare like `of_outputs`, some samples at a time."""
        from ...compressors.anatomy import compared_tensors

        first = distance.outputs[0].name
        parts: dict[str, list[_Compared]] = {}
        for outputs, expected in pairs:
            found = compared_tensors(outputs)
            for name, tensor in compared_tensors(expected.outputs).items():
                axis = distance.class_axis if name == first else None
                mine = parts.setdefault(name, [])
                mine += (_Compared.of(*part, axis) for part in _pieces(found[name], tensor, expected.real.get(name)))
        parities = {name: cls._of_parts(of_name) for name, of_name in parts.items()}
        worst = max(parities, key=lambda name: parities[name].max_difference)
        return replace(parities[first], max_difference=parities[worst].max_difference, worst=worst)

    @classmethod
    def between(
        cls, outputs: Tensor, expected: Tensor, class_axis: int | None = -1, *, real: Tensor | None = None
    ) -> Parity:
        """Compare two tensors of one shape, in double precision.

        class_axis  axis of the classes, by default the last; None: there are none, and so no answers
        real        bool that can be expanded to the outputs: only there they are compared. None: everywhere
        """
        return cls._of_parts([_Compared.of(*part, class_axis) for part in _pieces(outputs, expected, real)])

    @classmethod
    def _of_parts(cls, parts: Sequence[_Compared]) -> Parity:
        size = max(part.size for part in parts) or 1.0
        difference = max(part.difference for part in parts) / size
        n = sum(part.n for part in parts)
        if any(part.n_same is None for part in parts):
            return cls(max_difference=difference, same_answer=None, margin=0.0, n=n)
        same = sum(part.n_same or 0 for part in parts) / max(1, n)
        return cls(max_difference=difference, same_answer=same, margin=max(part.lead for part in parts) / size, n=n)

    @property
    def n_other(self) -> int:
        """Number of positions with another answer."""
        return 0 if self.same_answer is None else round((1.0 - self.same_answer) * self.n)

    @property
    def is_exact(self) -> bool:
        """True where another order of sums explains the difference."""
        return self.max_difference <= FLOAT_BOUND

    def verdict(self, *, integer: bool, rounding: bool = False) -> tuple[bool, str]:
        """(True within the bound, a clause with the difference and the bound).

        integer   whether activations are quantized, so that the runtime may multiply integers
        rounding  whether the runtime rounds by itself: activations as they come, or all sums in BF16
        """
        difference = f"outputs within {self.max_difference:.1e} of PyTorch's{f' ({self.worst})' if self.worst else ''}"
        if not (integer or (rounding and not self.is_exact)) or self.same_answer is None:
            is_within = self.is_exact
            return is_within, f"{difference} ({'' if is_within else 'missed: '}at most {FLOAT_BOUND:.0e} is expected)"
        is_within = self.same_answer >= SAME_ANSWER_BOUND or self.is_exact
        of_what = "integers" if integer else "a runtime that rounds by itself"
        text = f"{difference}, the same answer on {100 * self.same_answer:.2f} % of {self.n}"
        text += f" ({'' if is_within else 'missed: '}{100 * SAME_ANSWER_BOUND:g} % is expected of {of_what})"
        if self.n_other:
            text += f"; where it differs the expected answer led by {self.margin:.1e} at most"
        return is_within, text

    def metrics(self, split: str) -> dict[str, Measurement]:
        """`runtime_apart` (the largest difference), and `runtime_same_answer` where there are answers."""
        from ...evaluators.quality import wilson

        found = {"runtime_apart": Measurement(value=self.max_difference, unit="share", split=split, n=self.n)}
        if self.same_answer is not None:
            low, high = wilson(self.n - self.n_other, self.n)
            found["runtime_same_answer"] = Measurement(
                value=self.same_answer, low=low, high=high, unit="fraction", split=split, n=self.n
            )
        return found


@dataclass(frozen=True, slots=True)
class _Compared:
    """Comparison of some samples: the largest magnitude, difference and lead, and the number of equal answers of n."""

    size: float
    difference: float
    n: int
    n_same: int | None = None
    lead: float = 0.0

    @classmethod
    def of(cls, outputs: Tensor, expected: Tensor, real: Tensor | None, class_axis: int | None) -> _Compared:
        from ...compressors.anatomy import real_logits, real_values

        found, wanted = outputs.double(), expected.double()
        magnitudes, differences = real_values(wanted, real).abs(), real_values((found - wanted).abs(), real)
        size, difference = (float(part.max()) if part.numel() else 0.0 for part in (magnitudes, differences))
        if class_axis is None:
            return cls(size, difference, len(wanted))
        (found, where), (wanted, _) = (real_logits(part, real, class_axis) for part in (found, wanted))
        if wanted.dim() < 2 or wanted.shape[-1] < 2:
            return cls(size, difference, len(wanted))
        if where is not None:
            found, wanted = found[where], wanted[where]
        found, wanted = found.reshape(-1, found.shape[-1]), wanted.reshape(-1, wanted.shape[-1])
        if not len(wanted):
            return cls(size, difference, 0, 0)
        answer, right = found.argmax(dim=1, keepdim=True), wanted.argmax(dim=1, keepdim=True)
        lead = (wanted.gather(1, right) - wanted.gather(1, answer))[:, 0]
        return cls(size, difference, len(wanted), int((answer == right).sum()), float(lead.max()))


def _pieces(outputs: Tensor, expected: Tensor, real: Tensor | None) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Yield outputs, expected ones and mask a few samples at a time, for double precision takes twice the memory."""
    rows = max(1, _CHUNK // max(1, expected[0].numel()))
    for start in range(0, len(expected), rows):
        part = slice(start, start + rows)
        mask = real if real is None or len(real) != len(expected) else real[part]
        yield outputs[part], expected[part], mask


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityResult:
    """Outcome of the comparison of an artifact's outputs with PyTorch's.

    is_within  True where the bound of its kind is kept (`Parity.verdict`)
    is_broken  True where it is missed and integers are no excuse
    text       the difference, the bound, and the reason where it is missed
    metrics    of `Parity.metrics`
    """

    is_within: bool
    is_broken: bool
    text: str
    metrics: dict[str, Measurement]
