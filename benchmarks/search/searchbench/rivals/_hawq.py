"""HAWQ-V3: a second-order score for each layer and level, and an integer programme (Yao et al. 2021, "HAWQ-V3: Dyadic
Neural Network Quantization"; the trace as in HAWQ-V2, Dong et al. 2020).

Ω_l(s) = (Tr H_l / n_l) · ‖W_l(s) − W_l‖², H_l the Hessian of the loss by the layer's n_l weights, its trace by
Hutchinson's estimate E[vᵀ H v] with signs v. The programme min Σ Ω under a budget is solved for many budgets, and each
solution is evaluated once; no evaluation guides it.

Different here: cross entropy on samples of the search split (the rest of the world uses training samples; ResNet-20
knows those by heart). Cost: a gradient that can be differentiated again counts 3 passes, each product H v 4 more.
Traces that come out negative count as the smallest positive one. The programme is a dynamic one over 10,000 buckets.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..lab import Lab, RealLab
from ._gradients import labels_of, of_labels, weight_of
from ._programme import Programme, spread

N_SAMPLES, N_PROBES, BATCH = 64, 16, 32
GRADIENT_PASSES, PRODUCT_PASSES = 3.0, 4.0
MAX_BUDGETS = 500


def hawq(lab: Lab, rng: np.random.Generator) -> None:
    if not isinstance(lab, RealLab):
        raise TypeError(f"HAWQ-V3 takes gradients, so it needs a real model; got a {type(lab).__name__}")
    bench = lab.workbench.problem.context
    n = min(N_SAMPLES, lab.n_samples)
    lab.pay("gradients", n * (GRADIENT_PASSES + N_PROBES * PRODUCT_PASSES))
    split = bench.split.take(n)
    targets = labels_of(bench, split)
    if targets is None or not isinstance(split.inputs, Tensor):
        raise TypeError("HAWQ-V3 here knows models of one input only, with classes as targets")
    groups = [group.layers for group in bench.space.groups]
    weights = [[weight_of(bench.model, fqn) for fqn in layers] for layers in groups]
    traces = hessian_traces(bench.model, split.inputs, targets, [w for ws in weights for w in ws], rng)
    omega = np.array(lab.errors)
    at = 0
    for g, layers in enumerate(weights):
        scores = 0.0
        for weight in layers:
            scores += traces[at] / weight.numel() * float(weight.detach().square().sum())
            at += 1
        omega[g] *= scores  # the error is relative to the weight's square
    programme = Programme(omega, lab.costs)
    ends = (lab.costs.min(axis=1).sum(), np.where(np.isfinite(lab.costs), lab.costs, 0.0).max(axis=1).sum())
    for budget in spread(lab.fixed + float(ends[0]), lab.fixed + float(ends[1]), MAX_BUDGETS):
        if (levels := programme.solve(budget - lab.fixed)) is not None:
            lab.full(levels)


def hessian_traces(
    model: nn.Module, inputs: Tensor, targets: Tensor, weights: list[nn.Parameter], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Tr H of the mean cross entropy by each weight, shape (weights,), all positive. The model is left as it was."""
    before = [weight.requires_grad for weight in weights]
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
    totals = np.zeros(len(weights))
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # the fused attention has no second derivative
            for x, y in zip(inputs.split(BATCH), targets.split(BATCH), strict=True):
                loss = of_labels(model(x), y)
                gradients = torch.autograd.grad(loss, weights, create_graph=True)
                for _ in range(N_PROBES):
                    signs = [torch.randint(0, 2, w.shape, generator=generator).to(w.dtype) * 2 - 1 for w in weights]
                    products = torch.autograd.grad(gradients, weights, grad_outputs=signs, retain_graph=True)
                    found = [float((v * hv).sum()) for v, hv in zip(signs, products, strict=True)]
                    totals += np.array(found) * len(x) / len(inputs) / N_PROBES
    finally:
        for weight, required in zip(weights, before, strict=True):
            weight.requires_grad_(required)
    positive = totals[totals > 0]
    return np.maximum(totals, positive.min() if positive.size else 1.0)
