"""Perplexity: exp of the mean negative log likelihood of the targets, over tokens or over sequences."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ._classes import checked_classes, mean_of_counted, n_counted, rows_of_counted
from ._constants import IGNORED
from ._metric import Metric
from ._token_targets import token_targets


def _per_token(outputs: Tensor, targets: Tensor | None, reference: Tensor | None) -> Tensor:
    """Rows (sum of the negative log likelihoods in nats, number of tokens) for outputs (N, T, V) and targets (N, T);
    the negative log likelihoods (N,) for outputs (N, V).
    """
    nll, targets = _nll_of_targets("perplexity", outputs, targets)
    return rows_of_counted("perplexity", nll, targets)


def _per_sequence(outputs: Tensor, targets: Tensor | None, reference: Tensor | None) -> Tensor:
    """Mean negative log likelihood in nats of each sequence: outputs (N, T, V), targets (N, T) -> (N,)."""
    nll, targets = _nll_of_targets("perplexity_per_sequence", outputs, targets)
    return mean_of_counted("perplexity_per_sequence", nll, targets)


def _nll_of_targets(name: str, outputs: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor]:
    targets = checked_classes(name, outputs, targets)
    nll = torch.stack([_nll(*pair) for pair in zip(outputs, targets, strict=True)])  # a sequence at a time: V is large
    return nll, targets


def _nll(logits: Tensor, targets: Tensor) -> Tensor:
    flat = logits.double().reshape(-1, logits.shape[-1])
    nll = functional.cross_entropy(flat, targets.reshape(-1), ignore_index=IGNORED, reduction="none")
    return nll.reshape(targets.shape)


def _exp(nll: float) -> float:
    try:
        return math.exp(nll)
    except OverflowError:
        return math.inf  # refused by `Metric.value`, with the mean that led to it


PERPLEXITY = Metric(
    name="perplexity",
    maximise=False,
    per_sample=_per_token,
    finish=_exp,
    weight=n_counted,
    range=(1.0, math.inf),
    targets_from=token_targets,
    divergence="kl",
    reads_classes=True,
    masks=True,
)
"""exp of the mean over all tokens of the split: a long sequence counts more than a short one."""

PERPLEXITY_PER_SEQUENCE = Metric(
    name="perplexity_per_sequence",
    maximise=False,
    per_sample=_per_sequence,
    finish=_exp,
    range=(1.0, math.inf),
    targets_from=token_targets,
    divergence="kl",
    reads_classes=True,
    masks=True,
)
"""exp of the mean over sequences of each one's mean over its tokens: every sequence counts alike."""
