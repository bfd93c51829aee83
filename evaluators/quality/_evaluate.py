"""Scores of a model on a split, for the metric and the divergence, from one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...compressors.anatomy import NamedOutputs, Outputs, primary, primary_name
from ..values import Inputs, Reference, ReferenceOutputs, Split, run_batches
from ._class_axis import LAST, unknown_class_axis
from ._distance import OutputDistance
from ._divergence import checked_divergence
from ._error import MetricError
from ._metric import Metric


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """One row of the metric, (N,) or (N, K) float64, and one divergence for each sample; `divergence` is None where
    none was requested.
    """

    metric: Tensor
    divergence: Tensor | None = None


def evaluate_outputs(
    metric: Metric, split: Split, outputs: Outputs, reference: ReferenceOutputs | None = None
) -> Tensor:
    """Rows (N,) or (N, K) of given outputs (N, …). Raises `MetricError`."""
    return evaluate_batches([outputs], split, metric, reference=reference).metric


def evaluate_batches(
    batches: Iterable[Outputs],
    split: Split,
    metric: Metric,
    *,
    reference: Reference | None = None,
    divergence: str | OutputDistance | None = None,
) -> Scores:
    """Score given outputs of the first samples of the split, some samples at a time; arguments as in `evaluate_split`.

    Each batch is dropped before the next is asked for. Raises `MetricError`.
    """
    judge = _Judge.of(metric, split, reference, divergence)
    scores = judge.joined(batches, 0)
    return Scores(metric=metric.compact(scores.metric), divergence=scores.divergence)


def evaluate_split(
    model: nn.Module | Callable[[Inputs], Outputs],
    split: Split,
    metric: Metric,
    *,
    reference: Reference | None = None,
    divergence: str | OutputDistance | None = None,
    batch_size: int = 256,
) -> Scores:
    """Run `model` (or a runtime's `Session.run`) over `split` and score each batch as it comes; outputs are not kept.

    With `divergence` ("kl" or "mse", or a distance, which a model of several outputs needs) also the divergence from
    `reference`, which then is needed. The model is left as it was found. Raises `MetricError` for a metric's or an
    output's NaN and for wrong shapes.
    """
    (scores,) = evaluate_parts(
        model, split, metric, stops=(len(split),), reference=reference, divergence=divergence, batch_size=batch_size
    )
    return Scores(metric=metric.compact(scores.metric), divergence=scores.divergence)


def evaluate_parts(
    model: nn.Module | Callable[[Inputs], Outputs],
    split: Split,
    metric: Metric,
    *,
    stops: Sequence[int],
    reference: Reference | None = None,
    divergence: str | OutputDistance | None = None,
    batch_size: int = 256,
) -> Iterator[Scores]:
    """Evaluate like `evaluate_split`, in parts that end at each of the rising `stops`, and then at the last sample.

    Between two parts the model is as it was found, so a caller may stop early.
    """
    if divergence is not None and reference is None:
        raise MetricError(f"divergence {divergence!r} compares with the original model; hand in its `reference`")
    if reference is not None and len(reference) < len(split):
        raise MetricError(
            f"the reference has outputs of {len(reference)} samples, and the {split.name} split has {len(split)}; "
            "compute the reference on the same split"
        )
    judge, at = _Judge.of(metric, split, reference, divergence), 0
    for stop in stops:
        yield judge.joined(run_batches(model, split.between(at, stop), batch_size), at)
        at = min(stop, len(split))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Judge:
    """Everything that the outputs of a split are judged by.

    targets, counted  of the whole split
    """

    metric: Metric
    targets: Tensor | None
    counted: Tensor | None
    reference: Reference | None
    divergence: str | OutputDistance | None

    @classmethod
    def of(
        cls, metric: Metric, split: Split, reference: Reference | None, divergence: str | OutputDistance | None
    ) -> _Judge:
        targets, counted = metric.targets_of(split), metric.counted_of(split)
        return cls(metric=metric, targets=targets, counted=counted, reference=reference, divergence=divergence)

    def joined(self, batches: Iterable[Outputs], at: int) -> Scores:
        """Score batches that begin with sample `at`."""
        found: list[Scores] = []
        for outputs in batches:
            found.append(self._scores(outputs, slice(at, at + len(outputs))))
            at += len(outputs)
        apart = [scores.divergence for scores in found if scores.divergence is not None]
        return Scores(
            metric=torch.cat([scores.metric for scores in found]), divergence=torch.cat(apart) if apart else None
        )

    def _scores(self, outputs: Outputs, rows: slice) -> Scores:
        against = (
            self.reference.between(rows.start, rows.stop) if self.reference is not None and self._compares else None
        )
        original = None if against is None else against.outputs
        if isinstance(outputs, NamedOutputs) and isinstance(original, NamedOutputs):
            outputs = outputs.like(original)
        wanted, counted = (None if part is None else part[rows] for part in (self.targets, self.counted))
        if self.metric.frames and against is not None:
            counted = _frames_of(self.metric, outputs, against, counted)
        scores = self.metric.scores(outputs, wanted, original, counted)
        if self.divergence is None or against is None:
            return Scores(metric=scores)
        distance = _distance(self.divergence, self.metric, outputs, wanted)
        return Scores(metric=scores, divergence=distance.per_sample(outputs, against))

    @property
    def _compares(self) -> bool:
        """False where the reference would be read for nothing, which costs a pass if it is computed again."""
        if isinstance(self.reference, ReferenceOutputs) or self.divergence is not None or self.metric.reads_all:
            return True
        return self.metric.needs_reference or (self.metric.frames and self.counted is not None)


def _frames_of(metric: Metric, outputs: Outputs, reference: ReferenceOutputs, counted: Tensor | None) -> Tensor | None:
    """Real frames (N, T) of the output that the metric reads: its mask, where the model has shortened that of the
    inputs; else `counted`."""
    name = "" if isinstance(outputs, Tensor) else metric.output or primary_name(outputs)
    mask = reference.real.get(name)
    return counted if mask is None or mask.dim() < 2 else mask.flatten(2).any(dim=2) if mask.dim() > 2 else mask


def _distance(
    divergence: str | OutputDistance, metric: Metric, outputs: Outputs, targets: Tensor | None
) -> OutputDistance:
    if isinstance(divergence, OutputDistance):
        return divergence
    if isinstance(outputs, NamedOutputs):
        raise MetricError(
            f"the divergence {divergence!r} is of one output, and the model has {', '.join(outputs.names)}; give an "
            f"OutputDistance"
        )
    axis = metric.class_axis_of(primary(outputs), targets) if divergence == "kl" else LAST
    if axis is None:
        raise unknown_class_axis(primary(outputs).shape, targets)
    return OutputDistance.of_one(checked_divergence(divergence), class_axis=axis)
