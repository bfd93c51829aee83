"""Fewer bits, for weights and for activations. `README.md` here lists formats and methods."""

from ._activation import ActivationQuantizer, DynamicQuantizer, OutputQuantizer, dynamic_quantize, mse_range
from ._activation_ranges import activation_entropy, activation_minmax, activation_percentile
from ._adaptive import adaptive, best_format
from ._adaround import adaround, neighbours
from ._affine import affine, code_range
from ._descent import descent
from ._gptq import gptq
from ._grid import CASTS, CONCRETE, Grid, Params, Rounder
from ._hqq import hqq
from ._problem import Coded, WeightProblem, decoded
from ._ranges import entropy, minmax, percentile
from ._rounding import fit_nearest
from ._weighted import awq, weighted

__all__ = [
    "CASTS",
    "CONCRETE",
    "ActivationQuantizer",
    "Coded",
    "DynamicQuantizer",
    "Grid",
    "OutputQuantizer",
    "Params",
    "Rounder",
    "WeightProblem",
    "activation_entropy",
    "activation_minmax",
    "activation_percentile",
    "adaptive",
    "adaround",
    "affine",
    "awq",
    "best_format",
    "code_range",
    "decoded",
    "descent",
    "dynamic_quantize",
    "entropy",
    "fit_nearest",
    "gptq",
    "hqq",
    "minmax",
    "mse_range",
    "neighbours",
    "percentile",
    "weighted",
]
