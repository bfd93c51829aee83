"""One candidate's race, as a worker runs it: a pure function of the candidate, the looks and the rival's losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...evaluators import Measurement, MetricError, Scores, SequentialTest, evaluate_parts, losses_of, value_of_loss
from ..problem import EvaluationContext, judge
from ._incumbents import EvaluationResult, Losses

if TYPE_CHECKING:
    from collections.abc import Sequence


def screen(context: EvaluationContext, n: int) -> EvaluationResult:
    """Evaluate the bench's model, as it is now, on the first n samples of the search split. Raises `MetricError`."""
    parts = evaluate_parts(
        context.model, context.split.take(n), context.metric, stops=(n,),
        reference=context.reference, divergence=context.divergence, batch_size=context.batch_size,
    )  # fmt: skip
    return EvaluationResult(metrics=judge(context, _joined(list(parts))), samples=n)


def evaluate_sequentially(
    context: EvaluationContext,
    quality: str | None,
    test: SequentialTest | None,
    rival: Losses | None,
    screened: int = 0,
) -> EvaluationResult:
    """Evaluate the bench's model, as it is now, on the search split, in the parts between the looks of `test`.

    screened  metrics on the first so many samples are told apart, as `screen` gives them; 0: they are not

    The parts are the same with a rival and without, so that a trial's figures do not depend on whom it met.
    Raises `MetricError`.
    """
    total = len(context.split)
    first: dict[str, Measurement] = {}
    against = None if rival is None else rival.astype(np.float64)
    seen: list[Scores] = []
    parts = evaluate_parts(
        context.model, context.split, context.metric, stops=_stops(test, total, screened),
        reference=context.reference, divergence=context.divergence, batch_size=context.batch_size,
    )  # fmt: skip
    for part in parts:
        seen.append(part)
        n = sum(len(one.metric) for one in seen)
        if n == screened:
            first = judge(context, _joined(seen))
        if quality is None or test is None or against is None:
            continue
        if n not in test.looks:
            continue
        losses = _losses(context, quality, seen)
        if test.rejects(losses, against):
            metrics = judge(context, _joined(seen)) | {quality: _estimate(context, quality, test, losses, against)}
            return EvaluationResult(metrics=metrics, samples=len(losses), dropped=True)
    whole = None if quality is None else _losses(context, quality, seen).astype(np.float32)
    return EvaluationResult(metrics=judge(context, _joined(seen)), samples=total, losses=whole, screen=first)


def _stops(test: SequentialTest | None, total: int, screened: int) -> tuple[int, ...]:
    stops = {total, *(() if test is None else test.looks), *((screened,) if screened else ())}
    return tuple(sorted(stops))


def _joined(seen: Sequence[Scores]) -> Scores:
    import torch

    if len(seen) == 1:
        return seen[0]
    divergences = [part.divergence for part in seen if part.divergence is not None]
    return Scores(
        metric=torch.cat([part.metric for part in seen]), divergence=torch.cat(divergences) if divergences else None
    )


def _losses(context: EvaluationContext, quality: str, seen: Sequence[Scores]) -> NDArray[np.float64]:
    """(n,) of the samples seen: the divergence, or the metric's scores with the sign turned where more is better."""
    scores = _joined(seen)
    if quality == context.metric.name:
        return losses_of(context.metric, scores.metric)
    if scores.divergence is None:
        raise MetricError(f"the bench measures no {quality!r}, so nobody can race on it")
    return scores.divergence.numpy()


def _estimate(
    context: EvaluationContext,
    quality: str,
    test: SequentialTest,
    mine: NDArray[np.float64],
    rival: NDArray[np.float64],
) -> Measurement:
    """Of a candidate that was dropped, by its difference from the rival so far."""
    value, low, high = test.estimate(mine, rival)
    if quality == context.metric.name:
        value, low, high = (value_of_loss(context.metric, loss) for loss in (value, low, high))
        unit = context.metric.unit
    else:
        unit = "nats" if context.divergence == "kl" else ""
    return Measurement(value=value, unit=unit, low=min(low, high), high=max(low, high), split="search", n=len(mine))
