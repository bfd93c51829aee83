"""Scores from the loss' gradient on the calibration data.

What it does   taylor: |w * E[g]|, what the loss would gain or lose to first order, were the weight zero; gradient:
               |E[g]|; fisher: w^2 E[g^2] / 2, the same to second order with the Hessian's diagonal taken for the Fisher
               information's (the loss' own curvature, where OBS in `_obs.py` has that of the layer's output)
Paper          Molchanov et al. 2017 and 2019 (Taylor); LeCun et al. 1990, "Optimal Brain Damage" (diagonal)
We differ      no steps of training between: the gradient is that of the trained network, in one pass
Cost           one backward pass over the calibration split, shared by all of them
Did not help   on a trained network E[g] is near zero and mostly noise: "gradient" is no better than chance, "taylor"
               hardly. Where a network is sure of its answers E[g^2] comes from a few samples: on ResNet-20 "fisher"
               keeps 45 % of accuracy at half of the weights, magnitude 89; on a Llama of 260 k it is as good as Wanda
"""

from __future__ import annotations

from torch import Tensor

from ..registry import SPARSITY
from ._problem import SparsityProblem


def _known(problem: SparsityProblem) -> Tensor:
    assert problem.gradients is not None  # `compress` refuses the spec otherwise
    return problem.gradients


def gradient(problem: SparsityProblem) -> Tensor:
    return _known(problem)[0].abs()


def taylor(problem: SparsityProblem) -> Tensor:
    return (problem.matrix * _known(problem)[0]).abs()


def fisher(problem: SparsityProblem) -> Tensor:
    return problem.matrix.square() * _known(problem)[1] / 2.0


SPARSITY.register("gradient", gradient, gives="scores", needs="gradients")
SPARSITY.register("taylor", taylor, gives="scores", needs="gradients")
SPARSITY.register("fisher", fisher, gives="scores", needs="gradients")
