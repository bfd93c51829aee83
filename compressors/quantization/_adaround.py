"""AdaRound: each weight up or down, whichever is better for the layer's output, learned for all of them together.

What it does   a weight lies between two codewords; how far it goes towards the upper one is a soft variable, pulled
               by the gradient of the output's error and pushed to 0 or 1 more and more
Paper          Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization", eq. 21 to 24
We differ      the output's error is quadratic, so its gradient comes from the inputs' second moments and no
               activation is kept; any format (the two codewords are neighbours in its table); scales as "gptq" has
               them. No ReLU behind the layer is looked at, and the inputs are those of the original model. A row that
               ends worse than GPTQ's, or than rounding to nearest, takes that
Cost           600 products of the layer's error with the moments: five to twenty times "descent"
Did not help   on small layers, where "descent", which may move a weight by more than one codeword, ends lower; on 576
               inputs at 3 and 4 bits adaround's output error is 5 % below it
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import WEIGHT, damped
from ._descent import ROUNDING_DAMPING
from ._fit import fit
from ._gptq import compensated
from ._grid import CONCRETE, Rounder
from ._problem import Coded, WeightProblem, coded, nearest
from ._soft_rounding import PUSH, RATE, STRETCH, push_exponent, soft_variable, stretched

_ITERATIONS = 600


def adaround(problem: WeightProblem) -> Coded:
    params = fit(problem.grid, problem.target, problem.importance)
    if problem.moments is None:
        return nearest(problem, params)
    rounder, hessian = problem.rounder(params), damped(problem.moments, ROUNDING_DAMPING)
    candidates = [_learned(problem, rounder, hessian), compensated(problem, params), rounder.values(problem.target)]
    errors = torch.stack([_row_errors(problem, hessian, values) for values in candidates])
    best = errors.argmin(dim=0)
    values = torch.stack(candidates)[best, torch.arange(problem.shape[0])]
    return coded(problem, params, values)


def neighbours(rounder: Rounder, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """(lower, upper) codewords around each weight; for a weight beyond the table, the outermost one twice."""
    scaled = matrix / rounder.scale
    if rounder.grid.has_table:
        table = rounder.table
        place = torch.searchsorted(table, scaled.contiguous(), right=True)
        lower, upper = table[(place - 1).clamp_(min=0)], table[place.clamp(max=len(table) - 1)]
        lower = torch.where(place >= len(table), table[-1], lower)
        upper = torch.where(place == 0, table[0], upper)
    else:
        low: Tensor | float = float(rounder.low) if rounder.zero is None else -rounder.zero
        high: Tensor | float = float(rounder.high) if rounder.zero is None else 2 * rounder.half - 1 - rounder.zero
        lower, upper = (x.clamp(min=low, max=high) for x in (scaled.floor(), scaled.floor() + 1.0))  # type: ignore[arg-type]
    return lower * rounder.scale, upper * rounder.scale


def _learned(problem: WeightProblem, rounder: Rounder, hessian: Tensor) -> Tensor:
    groups, shape = len(hessian), problem.shape
    lower, upper = neighbours(rounder, problem.target)
    largest = problem.matrix.abs().amax(dim=1, keepdim=True)
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    matrix, floor = problem.matrix / largest, lower / largest  # each row within [-1, 1]: no overflow in the squares
    gap = upper / largest - floor
    share = torch.where(gap > 0, (problem.target / largest - floor) / gap.clamp(min=1e-30), 0.5).clamp(0.01, 0.99)
    soft = soft_variable(share)  # begins at the weight itself
    # each row's error in units of what rounding to nearest costs it, so that one push fits all layers
    plain = (rounder.values(problem.target) / largest - matrix).reshape(groups, -1, shape[1])
    unit = ((plain @ hessian) * plain).sum(dim=2).reshape(-1, 1).clamp(min=1e-30)
    momentum, power = torch.zeros_like(soft), torch.zeros_like(soft)
    for step in range(1, _ITERATIONS + 1):
        logistic = torch.sigmoid(soft)
        wide = stretched(logistic)
        open_ = (wide > 0.0) & (wide < 1.0)
        part = wide.clamp(0.0, 1.0)
        slope = torch.where(open_, (2.0 * STRETCH - 1.0) * logistic * (1.0 - logistic), 0.0)
        values = floor + gap * part
        values = values if problem.mask is None else values * problem.mask
        error = (values - matrix).reshape(groups, -1, shape[1])
        gradient = 2.0 * (error @ hessian).reshape(shape) * gap * (shape[1] / unit)
        beta = push_exponent(step, _ITERATIONS)
        if beta is not None:
            centred = 2.0 * part - 1.0
            gradient -= 2.0 * PUSH * beta * centred.abs().pow(beta - 1.0) * centred.sign()
        gradient *= slope
        momentum.mul_(0.9).add_(gradient, alpha=0.1)
        power.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        scale = (power / (1.0 - 0.999**step)).sqrt_().add_(1e-12)
        soft.addcdiv_(momentum / (1.0 - 0.9**step), scale, value=-RATE)
    up = torch.sigmoid(soft) >= 0.5
    values = torch.where(up, upper, lower)
    return values if problem.mask is None else values * problem.mask


def _row_errors(problem: WeightProblem, hessian: Tensor, values: Tensor) -> Tensor:
    d = (values.double() - problem.matrix.double()).reshape(len(hessian), -1, problem.shape[1])
    return ((d @ hessian.double()) * d).sum(dim=2).reshape(-1)


WEIGHT.register("adaround", adaround, formats=CONCRETE, needs="moments")
