"""Outputs of the original model, with which all others are compared: kept, or computed again where they are large."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from ...compressors.anatomy import OutputMasks, Outputs, copied, named_tensors, output_masks, real_values
from ._run import run_split
from ._split import Split
from ._variance import RunningVariance

KEPT_BYTES = 256 << 20
"""Outputs of a split that are kept in memory, at most; larger ones are computed again for each batch."""
BATCH_BYTES = 64 << 20
"""Outputs of one batch, at most (one sample may be larger)."""


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceOutputs:
    """Outputs of the original model on a split, or on a part of it, computed once.

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
        found = RunningVariance()
        if isinstance(outputs, Tensor):
            found.add(real_values(outputs, (real or {}).get("")))
        return cls(outputs, found.value if isinstance(outputs, Tensor) else 1.0, real or {})

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

    def parts(self) -> Iterator[ReferenceOutputs]:
        """Yield all samples in order, as many at a time as may be in memory: here, all at once."""
        yield self


@dataclass(frozen=True, slots=True, eq=False)
class RecomputedOutputs:
    """Outputs of the original model on a split, computed whenever they are read, for they are too large to keep.

    They are those of `ReferenceOutputs`; memory does not grow with the number of samples.

    model       the model, which others may change after this is made: a copy of its structure that shares the weights
                is run. Parameters must be replaced, and never written into
    batch_size  samples of one pass
    variance    as in `ReferenceOutputs`
    """

    model: nn.Module
    split: Split
    batch_size: int
    variance: float
    _original: nn.Module

    @classmethod
    def compute(cls, model: nn.Module, split: Split, batch_size: int) -> RecomputedOutputs:
        """Run the model once, for the variance."""
        found = cls(model, split, batch_size, 1.0, copied(model, shares_weights=True))
        variance, is_one = RunningVariance(), True
        for part in found.parts():
            is_one = isinstance(part.outputs, Tensor)
            if isinstance(part.outputs, Tensor):
                variance.add(real_values(part.outputs, part.real.get("")))
        return replace(found, variance=variance.value) if is_one else found

    @classmethod
    def restored(cls, model: nn.Module, split: Split, batch_size: int, variance: float) -> RecomputedOutputs:
        """Make it again in another process, where `model` arrived with its original weights."""
        return cls(model, split, batch_size, variance, copied(model, shares_weights=True))

    def __reduce__(self) -> tuple[Any, ...]:  # the weights travel once, with the model
        return RecomputedOutputs.restored, (self.model, self.split, self.batch_size, self.variance)

    def __len__(self) -> int:
        return len(self.split)

    def take(self, n: int) -> RecomputedOutputs:
        """Take the first `n` samples; the variance stays that of all."""
        return replace(self, split=self.split.take(n))

    def between(self, start: int, stop: int) -> ReferenceOutputs:
        """Compute the outputs of the samples from `start` up to, not including, `stop`."""
        rows = self.split.between(start, stop)
        outputs = run_split(self._original, rows, self.batch_size)
        return ReferenceOutputs(
            outputs, self.variance, output_masks(outputs, rows.inputs, rows.mask, model=self._original)
        )

    def parts(self) -> Iterator[ReferenceOutputs]:
        """Yield the outputs of all samples in order, a batch at a time."""
        for start in range(0, len(self), self.batch_size):
            yield self.between(start, min(start + self.batch_size, len(self)))


Reference = ReferenceOutputs | RecomputedOutputs


def reference_outputs(model: nn.Module, split: Split, batch_size: int) -> Reference:
    """Run the original over a split, and keep its outputs if they take at most `KEPT_BYTES`."""
    size = output_bytes(run_split(model, split.take(1), 1))
    if size * len(split) <= KEPT_BYTES:
        return ReferenceOutputs.compute(model, split, batch_size)
    return RecomputedOutputs.compute(model, split, bounded_batch(batch_size, size))


def output_bytes(outputs: Outputs) -> int:
    """Bytes of one sample's outputs, where `outputs` are those of one."""
    return sum(tensor.numel() * tensor.element_size() for tensor in named_tensors(outputs).values())


def bounded_batch(batch_size: int, bytes_of_one: int) -> int:
    """Samples of a batch whose outputs take at most `BATCH_BYTES`, at least 1 and at most `batch_size`."""
    return max(1, min(batch_size, BATCH_BYTES // max(1, bytes_of_one)))
