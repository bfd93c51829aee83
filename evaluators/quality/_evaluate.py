"""Scores of a model on a split, for the metric and the divergence, from one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...compressors.anatomy import NamedOutputs, Outputs, primary
from ..values import Inputs, ReferenceOutputs, Split, run_batches
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
    original = None if reference is None else reference.outputs[: len(split)]
    return metric.compact(metric.scores(outputs, metric.targets_of(split), original, metric.counted_of(split)))


def evaluate_split(
    model: nn.Module | Callable[[Inputs], Outputs],
    split: Split,
    metric: Metric,
    *,
    reference: ReferenceOutputs | None = None,
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
    reference: ReferenceOutputs | None = None,
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
    targets, counted = metric.targets_of(split), metric.counted_of(split)
    at = 0
    for stop in stops:
        of_metric: list[Tensor] = []
        of_divergence: list[Tensor] = []
        for outputs in run_batches(model, split.between(at, stop), batch_size):
            rows = slice(at, at + len(outputs))
            against = None if reference is None else reference.between(rows.start, rows.stop)
            original = None if against is None else against.outputs
            if isinstance(outputs, NamedOutputs) and isinstance(original, NamedOutputs):
                outputs = outputs.like(original)
            wanted = None if targets is None else targets[rows]
            of_metric.append(metric.scores(outputs, wanted, original, None if counted is None else counted[rows]))
            if divergence is not None and against is not None:
                distance = _distance(divergence, metric, outputs, wanted)
                of_divergence.append(distance.per_sample(outputs, against))
            at = rows.stop
        yield Scores(metric=torch.cat(of_metric), divergence=torch.cat(of_divergence) if of_divergence else None)


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
