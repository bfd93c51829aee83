"""Magnitude: the smallest weights are dropped.

What it does   scores a weight by its magnitude
Paper          Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks"
We differ      no retraining here, and the share is set for each layer by the search. One threshold for all layers is an
               allocation and no score: the search evaluates it beside the uniform settings, as one to beat
Cost           one sort
Did not help   latency: no runtime that we export to runs unstructured zeros faster on a CPU. It saves bytes only, and
               those only where a sparse format is smaller than dense codes (at 4 bits: beyond 25 % zeros). Of
               ResNet-20 it leaves 42 % of accuracy at three quarters of zeros, where "refit(wanda)" leaves 84
"""

from __future__ import annotations

from torch import Tensor

from ..registry import SPARSITY
from ..values import Pattern
from ._patterns import drop_lowest
from ._problem import SparsityProblem


def n_zeros(share: float, numel: int) -> int:
    """Number of dropped weights among `numel`: the nearest whole number, but at least one weight survives."""
    return Pattern().n_zeros(share, (1, numel))


def magnitude(matrix: Tensor, share: float) -> Tensor:
    """Mask of `matrix`'s shape, True where a weight survives. Of equal magnitudes, the earlier is dropped first."""
    return drop_lowest(matrix.abs(), Pattern(), share)


def _score(problem: SparsityProblem) -> Tensor:
    return problem.matrix.abs()


SPARSITY.register("magnitude", _score, gives="scores")
