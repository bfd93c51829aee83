"""Ranking of items: the hit rate and the normalised discounted cumulative gain of the first k."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ._classes import checked_classes, n_counted, rows_of_counted
from ._constants import IGNORED
from ._error import MetricError
from ._metric import Metric


def hit_rate(*, k: int) -> Metric:
    """Make the hit rate at k: the share of lists with a relevant item among the first k.

    An item that ties with others stands below them, so that equal scores for all count as none.
    """
    return _metric(f"hit_rate_at_{k}", partial(_hits, k))


def ndcg(*, k: int) -> Metric:
    """Make NDCG at k: the sum over the first k of relevance / log2(place + 1), by that of the best order; 0 where no
    item is relevant. Items that tie share their places' discounts (as scikit-learn's `ndcg_score`).
    """
    return _metric(f"ndcg_at_{k}", partial(_gains, k))


def _metric(name: str, of: partial[Tensor]) -> Metric:
    return Metric(
        name=name,
        maximise=True,
        per_sample=partial(_per_sample, name, of),
        unit="fraction",
        weight=n_counted,
        range=(0.0, 1.0),
        divergence="kl",
        reads_classes=True,
        masks=True,
    )


def _per_sample(
    name: str, of: partial[Tensor], outputs: Tensor, targets: Tensor | None, reference: Tensor | None
) -> Tensor:
    """Scores (N,) for outputs (N, I), scores of I items, and targets (N,), the number of the relevant item, or (N, I),
    the relevance of each (0: none); rows (sum, lists) for outputs (N, T, I) and targets (N, T), -100 left out.
    """
    if targets is not None and outputs.dim() == 2 and targets.shape == outputs.shape:
        relevance = targets.to(outputs.device).double()
        if not bool((relevance >= 0).all()):
            raise MetricError(f"{name}: the relevance of an item must be 0 or more, got {float(relevance.min())}")
        scores: Tensor = of(outputs.double(), relevance)
        return scores
    targets = checked_classes(name, outputs, targets)
    flat, wanted = outputs.reshape(-1, outputs.shape[-1]).double(), targets.reshape(-1)
    found = flat.new_zeros(len(flat))
    counts = wanted != IGNORED
    if bool(counts.any()):
        relevance = torch.nn.functional.one_hot(wanted[counts], outputs.shape[-1]).double()
        found[counts] = of(flat[counts], relevance)
    return rows_of_counted(name, found.reshape(targets.shape), targets)


def _hits(k: int, scores: Tensor, relevance: Tensor) -> Tensor:
    above, ties = _places(scores)
    return ((above + ties <= k) & (relevance > 0)).any(dim=1).double()


def _gains(k: int, scores: Tensor, relevance: Tensor) -> Tensor:
    n = scores.shape[1]
    discounts = 1.0 / torch.arange(2, n + 2, dtype=torch.float64).log2()
    discounts[k:] = 0.0
    upto = torch.cat([torch.zeros(1, dtype=torch.float64), discounts.cumsum(dim=0)]).to(scores.device)
    above, ties = _places(scores)
    gain = (relevance * (upto[above + ties] - upto[above]) / ties).sum(dim=1)
    best = (relevance.sort(dim=1, descending=True).values * discounts.to(scores.device)).sum(dim=1)
    return torch.where(best > 0, gain / best.where(best > 0, torch.ones_like(best)), 0.0)


def _places(scores: Tensor) -> tuple[Tensor, Tensor]:
    """(How many items have more, how many have as much, itself included) of each item, (N, I) both."""
    falling = -scores.contiguous()
    ordered = falling.sort(dim=1).values
    above = torch.searchsorted(ordered, falling)
    return above, torch.searchsorted(ordered, falling, right=True) - above


HIT_RATE, NDCG = hit_rate(k=10), ndcg(k=10)
