"""Quality and divergence of evaluated outputs, as measurements with intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ...errors import ParedownError, TaskError
from ..task import told
from ._user_errors import described

if TYPE_CHECKING:
    from ...evaluators import Measurement, Scores
    from ._context import EvaluationContext


def judge(context: EvaluationContext, scores: Scores, *, split: str = "search") -> dict[str, Measurement]:
    """Return quality and divergence with their intervals. Raises `MetricError` for a value that is not finite."""
    from ...evaluators import Measurement, MetricError, summarise

    metrics = {context.metric.name: summarise(scores.metric, context.metric, split)}
    if scores.divergence is not None:
        apart = scores.divergence
        mean = float(apart.mean())
        half = 1.96 * float(apart.std()) / math.sqrt(len(apart)) if len(apart) > 1 else 0.0
        low = min(mean, max(0.0, mean - half))  # a divergence is never negative
        metrics["divergence"] = Measurement(
            value=mean, unit=context.distance.unit, low=low, high=mean + half,
            split=split, n=len(apart),
        )  # fmt: skip
    for name, measurement in metrics.items():
        if not measurement.is_finite:
            raise MetricError(f"{name} is {measurement.value} on the {split} split, expected a finite number")
    return metrics


def original_quality(context: EvaluationContext, n: int) -> dict[str, Measurement]:
    """Return quality and divergence of the original on the first n samples of the search split.

    Raises `TaskError` for a metric that fails on the original.
    """
    import torch

    from ...evaluators import Scores, evaluate_batches

    reference, split = context.reference.take(n), context.split.take(n)
    try:
        found = evaluate_batches(
            (part.outputs for part in reference.parts()), split, context.metric, reference=reference
        )
    except ParedownError:
        raise
    except Exception as error:  # the metric may be the user's own code
        raise TaskError(
            f"quality.metric {context.metric.name} raised {told(error)} on outputs of the original model, "
            f"{described(next(reference.parts()).outputs)}, and targets {described(split.targets)}; "
            f"correct it, or the targets that data.factory returns"
        ) from error
    return judge(context, Scores(metric=found.metric, divergence=torch.zeros(n, dtype=torch.float64)))
