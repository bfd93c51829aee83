"""The evaluation context: what a worker needs to evaluate any candidate of a problem."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...compressors import Anatomy, Calibration
from ...evaluators import Measurement, Metric, ReferenceOutputs, Scores, Split
from ..space import Structured
from ..task import Plugins, RepairSection
from ..values import SearchSpace

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationContext:
    """The model, data and calibration that an evaluation needs. Each worker gets it once.

    reference   outputs of the original on the search split (validation)
    divergence  "kl" or "mse"
    repair      the repairs that follow compression
    repair_inputs  calibration batches for the repairs; empty if there are none
    plugins     modules of the user, which a worker imports first
    structured  coupled sets and blocks that can be removed; None if the task removes nothing
    """

    model: nn.Module
    anatomy: Anatomy
    calibration: Calibration
    space: SearchSpace
    split: Split
    reference: ReferenceOutputs
    metric: Metric
    divergence: str
    store: Path
    batch_size: int
    plugins: Plugins
    repair: RepairSection
    repair_inputs: tuple[Any, ...] = ()
    structured: Structured | None = None


def judge(context: EvaluationContext, scores: Scores, *, split: str = "search") -> dict[str, Measurement]:
    """Return quality and divergence with their intervals. Raises `MetricError` for a value that is not finite."""
    from ...evaluators import Measurement, MetricError, summarise

    metrics = {context.metric.name: summarise(scores.metric, context.metric, split)}
    if scores.divergence is not None:
        apart = scores.divergence
        mean = float(apart.mean())
        half = 1.96 * float(apart.std()) / math.sqrt(len(apart)) if len(apart) > 1 else 0.0
        metrics["divergence"] = Measurement(
            value=mean, unit="nats" if context.divergence == "kl" else "", low=mean - half, high=mean + half,
            split=split, n=len(apart),
        )  # fmt: skip
    for name, measurement in metrics.items():
        if not measurement.is_finite:
            raise MetricError(f"{name} is {measurement.value} on the {split} split")
    return metrics
