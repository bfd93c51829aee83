"""Gradients of the loss by the weights, for rivals that score layers by curvature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from paredown.compressors import forward
from paredown.compressors.anatomy import output_masks
from paredown.evaluators import Split
from paredown.evaluators.quality import IGNORED
from paredown.search.problem import EvaluationContext

from ..lab import Lab, RealLab

N_SAMPLES = 64
PASSES = 3.0
"""Sample passes of a gradient: forward, and backward, which costs two of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curvature:
    """What the diagonal empirical Fisher information says of each group and level, shape (groups, most levels).

    weighted  1/2 sum_i F_i (W(s)_i - W_i)^2
    traced    1/2 (sum_i F_i) mean_i (W(s)_i - W_i)^2

    Levels that a group does not have are infinite.
    """

    weighted: NDArray[np.float64]
    traced: NDArray[np.float64]


def curvature(lab: Lab, rng: np.random.Generator) -> Curvature:
    """From the gradient of each of 64 samples of the search split by itself; paid for as three passes each."""
    if not isinstance(lab, RealLab):
        raise TypeError(f"Fisher information needs a real model; got a {type(lab).__name__}")
    bench = lab.workbench.problem.context
    n = min(N_SAMPLES, lab.n_samples)
    lab.pay("gradients", n * PASSES)
    groups = [group.layers for group in bench.space.groups]
    weights = {fqn: weight_of(bench.model, fqn) for layers in groups for fqn in layers}
    diagonals = fisher_diagonals(bench, bench.split.take(n), weights, rng)
    weighted, traced = np.full(lab.costs.shape, np.inf), np.full(lab.costs.shape, np.inf)
    for g, group in enumerate(bench.space.groups):
        for level, spec in enumerate(group.levels):
            weighted[g, level] = traced[g, level] = 0.0
            for fqn in group.layers if spec.changes_weight else ():
                change = (lab.variant(fqn, spec) - weights[fqn].detach()).double().square()
                weighted[g, level] += float((diagonals[fqn] * change).sum()) / 2.0
                traced[g, level] += float(diagonals[fqn].sum() * change.mean()) / 2.0
    return Curvature(weighted=weighted, traced=traced)


def fisher_diagonals(
    bench: EvaluationContext, split: Split, weights: dict[str, nn.Parameter], rng: np.random.Generator
) -> dict[str, Tensor]:
    """Mean over the samples of the squared gradient, by layer. The model is left as it was.

    The loss is the cross entropy of the labels. A model without labels has the Fisher information of its outputs'
    distance, with one random direction for each sample.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
    targets = labels_of(bench, split)
    before = {fqn: weight.requires_grad for fqn, weight in weights.items()}
    totals = {fqn: torch.zeros(weight.shape, dtype=torch.float64) for fqn, weight in weights.items()}
    try:
        for weight in weights.values():
            weight.requires_grad_(True)
        for i, (inputs, _) in enumerate(split.batches(1)):
            with torch.enable_grad():
                outputs = forward(bench.model, inputs)
                if targets is None:
                    real = output_masks(outputs, inputs, split.mask, model=bench.model)
                    loss = bench.distance.drawn(outputs, generator, bench.reference.variance, real)
                else:
                    loss = of_labels(bench.metric.read(outputs), targets[i : i + 1])
                gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            for fqn, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    totals[fqn] += gradient.double().square() / len(split)
    finally:
        for fqn, weight in weights.items():
            weight.requires_grad_(before[fqn])
    return totals


def labels_of(bench: EvaluationContext, split: Split) -> Tensor | None:
    """Classes of the samples or of their tokens; None where there are none."""
    targets = bench.metric.targets_of(split)
    return None if targets is None or targets.is_floating_point() else targets.long()


def of_labels(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy; the classes are on the last axis."""
    flat = logits.reshape(-1, logits.shape[-1])
    return functional.cross_entropy(flat, targets.reshape(-1), ignore_index=IGNORED)


def weight_of(model: nn.Module, fqn: str) -> nn.Parameter:
    weight = model.get_submodule(fqn).weight
    if not isinstance(weight, nn.Parameter):
        raise TypeError(f"{fqn} has no weight that is a parameter")
    return weight
