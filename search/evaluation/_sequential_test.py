"""The evaluation of the model as it is now, stopped early once a sequential test rejects it.

The result depends on the candidate, the looks of the test and the incumbent's losses, and on nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...evaluators import Measurement, MetricError, Scores, SequentialTest, evaluate_parts, losses_of, value_of_loss
from ...evaluators.quality import within
from ..problem import EvaluationContext, judge
from ._results import EvaluationResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..._arrays import FloatArray
    from ._incumbents import Incumbent


def evaluate_first_samples(context: EvaluationContext, n: int) -> EvaluationResult:
    """Evaluate the model, as it is now, on the first n samples of the search split. Raises `MetricError`."""
    parts = evaluate_parts(
        context.model, context.split.take(n), context.metric, stops=(n,),
        reference=context.reference, divergence=context.distance, batch_size=context.batch_size,
    )  # fmt: skip
    return EvaluationResult(metrics=judge(context, _joined(list(parts))), samples=n)


def evaluate_sequentially(
    context: EvaluationContext,
    *,
    quality: str | None,
    test: SequentialTest | None,
    incumbent: Incumbent | None,
    n_low_fidelity: int = 0,
) -> EvaluationResult:
    """Evaluate the model, as it is now, on the search split, in the parts between the looks of `test`.

    quality         "divergence" or the metric's name: its losses are compared and returned; None: neither
    test            decides after each look whether to stop; None: the whole split is evaluated
    incumbent       has losses of the whole split; None: there is nothing to beat
    n_low_fidelity  metrics on the first so many samples are returned separately too; 0: they are not

    The parts are the same with an incumbent and without, so a trial's figures do not depend on it.
    Raises `MetricError` for a metric that is not finite, or a quality that is not measured.
    """
    total = len(context.split)
    first: dict[str, Measurement] = {}
    against = None if incumbent is None else incumbent.losses.astype(np.float64)
    seen: list[Scores] = []
    parts = evaluate_parts(
        context.model, context.split, context.metric, stops=_stops(test, total, n_low_fidelity),
        reference=context.reference, divergence=context.distance, batch_size=context.batch_size,
    )  # fmt: skip
    for part in parts:
        seen.append(part)
        n = sum(len(one.metric) for one in seen)
        if n == n_low_fidelity:
            first = judge(context, _joined(seen))
        if quality is None or test is None or incumbent is None or against is None:
            continue
        if n not in test.looks:
            continue
        losses = _losses(context, quality, seen)
        if test.rejects(losses, against):
            metrics = judge(context, _joined(seen)) | {quality: _estimate(context, quality, test, losses, against)}
            return EvaluationResult(metrics=metrics, samples=len(losses), beaten_by=incumbent.number)
    whole = None if quality is None else _losses(context, quality, seen).astype(np.float32)
    return EvaluationResult(metrics=judge(context, _joined(seen)), samples=total, losses=whole, low_fidelity=first)


def _stops(test: SequentialTest | None, total: int, n_low_fidelity: int) -> tuple[int, ...]:
    stops = {total, *(() if test is None else test.looks), *((n_low_fidelity,) if n_low_fidelity else ())}
    return tuple(sorted(stops))


def _joined(seen: Sequence[Scores]) -> Scores:
    import torch

    if len(seen) == 1:
        return seen[0]
    divergences = [part.divergence for part in seen if part.divergence is not None]
    return Scores(
        metric=torch.cat([part.metric for part in seen]), divergence=torch.cat(divergences) if divergences else None
    )


def _losses(context: EvaluationContext, quality: str, seen: Sequence[Scores]) -> FloatArray:
    """Give the loss of each sample seen, (n,): the divergence, or the score, negated if more of it is better."""
    scores = _joined(seen)
    if quality == context.metric.name:
        weight = context.metric.mean_weight(context.split) if scores.metric.dim() == 2 else 1.0
        return losses_of(context.metric, scores.metric, weight)
    if scores.divergence is None:
        raise MetricError(
            f"expected {context.metric.name!r} or a measured divergence to compare candidates by, got {quality!r}; "
            "switch early stopping off with [search] race = false"
        )
    return scores.divergence.numpy()


def _estimate(
    context: EvaluationContext,
    quality: str,
    test: SequentialTest,
    mine: FloatArray,
    against: FloatArray,
) -> Measurement:
    """Estimate the quality of a candidate that is stopped, from its difference to the incumbent so far."""
    value, low, high = test.estimate(mine, against)
    if quality == context.metric.name:
        value, low, high = (value_of_loss(context.metric, loss) for loss in (value, low, high))
        low, high = within(context.metric, value, *sorted((low, high)))
        unit = context.metric.unit
    else:
        unit = context.distance.unit
    return Measurement(value=value, unit=unit, low=low, high=high, split="search", n=len(mine))
