"""Sparse weights: scores, methods that choose and repair zeros, and patterns.

It knows `registry`, `files` and `anatomy`. `README.md` here lists scores, methods and patterns. Begin with
`_problem.py` (the input of a method) and `_patterns.py` (from scores to a mask). A new score is one file here,
registered at its end.
"""

from ._blend import composed
from ._cards import CARDS
from ._gradient import fisher, gradient, taylor
from ._magnitude import magnitude, n_zeros
from ._obs import block_obs, obs
from ._patterns import drop_lowest
from ._problem import SparsityProblem
from ._refit import refitted
from ._solve import sparsify
from ._sparsegpt import sparsegpt
from ._stability import ClosedLoop, StabilityRail, register_stability, stability_rail
from ._wanda import wanda

__all__ = [
    "CARDS",
    "ClosedLoop",
    "SparsityProblem",
    "StabilityRail",
    "block_obs",
    "composed",
    "drop_lowest",
    "fisher",
    "gradient",
    "magnitude",
    "n_zeros",
    "obs",
    "refitted",
    "register_stability",
    "sparsegpt",
    "sparsify",
    "stability_rail",
    "taylor",
    "wanda",
]
