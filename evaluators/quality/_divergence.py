"""Divergence of outputs from the original's: the search's guide, finer than accuracy on few samples."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import get_args

import torch
from torch import Tensor

from ...compressors.anatomy import real_logits, real_values
from ._class_axis import LAST, unknown_class_axis
from ._error import MetricError
from ._metric import Divergence, Metric

CHUNK = 1 << 22
"""Number of outputs widened to float64 at a time: 32 MiB."""


def resolve_divergence(kind: str, metric: Metric, targets: Tensor | None = None) -> Divergence:
    """Resolve "auto" to the metric's own choice, else to KL where the targets are classes, and to the squared error
    otherwise.
    """
    if kind == "auto":
        if metric.divergence is not None:
            return metric.divergence
        is_classes = targets is not None and not targets.is_floating_point()
        return "kl" if is_classes else "mse"
    if kind not in get_args(Divergence):
        raise MetricError(f"divergence must be one of auto, {', '.join(get_args(Divergence))}, got {kind!r}")
    return checked_divergence(kind)


def checked_divergence(kind: str) -> Divergence:
    """Return "kl" or "mse". Raises `MetricError` for any other."""
    if kind == "kl":
        return "kl"
    if kind == "mse":
        return "mse"
    raise MetricError(f"divergence must be one of {', '.join(get_args(Divergence))}, got {kind!r}")


def divergence_per_sample(
    outputs: Tensor,
    reference: Tensor,
    kind: str = "kl",
    *,
    variance: float | None = None,
    class_axis: int | None = LAST,
    real: Tensor | None = None,
) -> Tensor:
    """Divergence of each sample's `outputs` from `reference`, both (N, …): (N,) float64, 0 where they are equal.

    kl   KL(reference || outputs) in nats, with softmax over `class_axis`, averaged over the other axes (positions)
    mse  the mean squared difference, over the variance of the reference. That is `variance`, where scores of several
         batches are to be compared (`ReferenceOutputs.variance`), else that of `reference`; 1 where it is zero

    class_axis  axis of the classes (`resolve_class_axis`), by default the last; None where it is not known
    real        bool that can be expanded to the outputs: only there they count. None: everywhere

    Raises `MetricError` where the shapes differ, for NaN, and for "kl" with a single class (it would always be 0) or an
    unknown class axis.
    """
    if outputs.shape != reference.shape or outputs.dim() == 0:
        raise MetricError(
            f"divergence: expected outputs {tuple(reference.shape)}, as the reference, got {tuple(outputs.shape)}"
        )
    reference = reference.to(outputs.device)
    if kind == "kl":
        if class_axis is None:
            raise unknown_class_axis(outputs.shape, None)
        (outputs, where), (reference, _) = (real_logits(part, real, class_axis) for part in (outputs, reference))
        if outputs.dim() < 2 or outputs.shape[-1] < 2:
            raise MetricError(
                f"divergence 'kl' needs outputs (N, …, C) with at least 2 classes last, got {tuple(outputs.shape)}; "
                "use 'mse'"
            )
        scores = torch.cat([_mean(_kl(*pair), real) for *pair, real in _chunks(outputs, reference, where)])
        scores = scores.clamp_min(0.0)  # rounding can leave -1e-17
    elif kind == "mse":
        scale = variance if variance is not None else float(real_values(reference, real).double().var(correction=0))
        where = None if real is None else real.expand(outputs.shape)
        scores = torch.cat([_squared(*three) for three in _chunks(outputs, reference, where)])
        scores = scores / (scale if scale > 0 else 1.0)
    else:
        raise MetricError(f"divergence must be one of {', '.join(get_args(Divergence))}, got {kind!r}")
    if not bool(torch.isfinite(scores).all()):
        bad = ~torch.isfinite(scores)
        raise MetricError(
            f"divergence {kind!r} is not finite for {int(bad.sum())} of {len(scores)} samples (the first is sample "
            f"{int(bad.nonzero()[0])}); the outputs hold NaN or an infinity"
        )
    return scores.cpu()


def _chunks(outputs: Tensor, reference: Tensor, where: Tensor | None) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    rows = max(1, CHUNK // max(1, outputs[0].numel()))
    at = repeat(None) if where is None else where.to(outputs.device).split(rows)
    yield from zip(outputs.split(rows), reference.split(rows), at)  # noqa: B905 (a repeated None has no end)


def _mean(values: Tensor, where: Tensor | None) -> Tensor:
    """Mean (N,) of the values (N, …) of each sample, where they count; 0 where none does."""
    if values.dim() < 2:
        return values
    if where is None:
        return values.flatten(1).mean(dim=1)
    total = torch.where(where, values, 0.0).flatten(1).sum(dim=1)
    return total / where.flatten(1).sum(dim=1).clamp(min=1)


def _kl(outputs: Tensor, reference: Tensor) -> Tensor:
    """KL of each position, (n, …) of logits (n, …, C)."""
    n_classes = outputs.shape[-1]
    rows = max(1, CHUNK // n_classes)
    pairs = zip(outputs.reshape(-1, n_classes).split(rows), reference.reshape(-1, n_classes).split(rows), strict=True)
    return torch.cat([_kl_of_rows(*pair) for pair in pairs]).reshape(outputs.shape[:-1])


def _kl_of_rows(outputs: Tensor, reference: Tensor) -> Tensor:
    log_q = outputs.double().log_softmax(dim=-1)
    log_p = reference.double().log_softmax(dim=-1)
    p = log_p.exp()
    terms = torch.where(p > 0, p * (log_p - log_q), 0.0)  # 0 log 0 = 0: a masked answer has -inf on both sides
    return torch.where(log_p.isnan().any(-1), torch.nan, terms.sum(dim=-1))


def _squared(outputs: Tensor, reference: Tensor, where: Tensor | None) -> Tensor:
    return _mean((outputs.double() - reference.double()).square(), where)
