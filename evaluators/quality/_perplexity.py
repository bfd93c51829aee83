"""Perplexity: exp of the mean negative log likelihood of the targets."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ..values import Inputs
from ._classes import IGNORED, checked_classes, mean_of_counted
from ._error import MetricError
from ._metric import Metric


def _per_sample(outputs: Tensor, targets: Tensor | None, reference: Tensor | None) -> Tensor:
    """Mean negative log likelihood in nats of each sequence: outputs (N, T, V), targets (N, T) -> (N,).

    Where sequences differ in how many targets count, the mean is over sequences, not over tokens.
    """
    targets = checked_classes("perplexity", outputs, targets)
    nll = torch.stack([_nll(*pair) for pair in zip(outputs, targets, strict=True)])  # a sequence at a time: V is large
    return mean_of_counted("perplexity", nll, targets)


def _nll(logits: Tensor, targets: Tensor) -> Tensor:
    flat = logits.double().reshape(-1, logits.shape[-1])
    nll = functional.cross_entropy(flat, targets.reshape(-1), ignore_index=IGNORED, reduction="none")
    return nll.reshape(targets.shape)


def next_tokens(inputs: Inputs) -> Tensor:
    """Targets from token ids (N, T): the token at t + 1 for position t, except the last and those that `attention_mask`
    hides.
    """
    ids = inputs
    mask = None
    if isinstance(inputs, dict):
        if "input_ids" not in inputs:
            raise MetricError(f"perplexity needs targets, or inputs named 'input_ids'; got {', '.join(sorted(inputs))}")
        ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    elif isinstance(inputs, tuple):
        ids = inputs[0]
    if not isinstance(ids, Tensor):
        raise MetricError(f"perplexity needs targets, or token ids (N, T) as inputs; got {type(ids).__name__}")
    if ids.is_floating_point() or ids.dim() != 2 or ids.shape[1] < 2:
        raise MetricError(
            "perplexity needs targets, or token ids (N, T) with T >= 2 as inputs; "
            f"got inputs {tuple(ids.shape)} of {ids.dtype}"
        )
    targets = torch.full_like(ids, IGNORED, dtype=torch.int64)
    targets[:, :-1] = ids[:, 1:]
    if mask is not None:
        targets[:, :-1][mask[:, 1:] == 0] = IGNORED
    return targets


def _exp(nll: float) -> float:
    try:
        return math.exp(nll)
    except OverflowError:
        return math.inf  # refused by `Metric.value`, with the mean that led to it


PERPLEXITY = Metric(
    name="perplexity",
    maximise=False,
    per_sample=_per_sample,
    finish=_exp,
    infer_targets=next_tokens,
    divergence="kl",
    reads_classes=True,
)
