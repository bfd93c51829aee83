"""Quantization of weights and activations: formats of codes, methods that choose them, ranges.

It knows `registry` and `values`. `README.md` here lists formats and methods. Begin with `_grid.py` (the meaning of a
code) and `_problem.py` (the input and output of a method). A new method is one file here, registered at its end; a new
fixed table belongs in `_tables.py`.
"""

from ._activation import (
    ActivationQuantizer,
    DynamicQuantizer,
    OutputQuantizer,
    StraightThrough,
    affine_qparams,
    dynamic_quantize,
    fake_quantize,
    mse_range,
    symmetric_qparams,
)
from ._activation_ranges import activation_entropy, activation_minmax, activation_percentile
from ._adaptive import adaptive, best_format
from ._adaround import adaround, neighbours
from ._affine import affine, code_range
from ._auto import auto
from ._cards import CARDS
from ._descent import ROUNDING_DAMPING, descent
from ._gptq import compensated, gptq
from ._grid import CASTS, CONCRETE, Grid, Params, Rounder, from_groups, to_groups
from ._hqq import hqq
from ._palette import kmeans
from ._problem import Coded, WeightProblem, decoded
from ._ranges import all_codes, entropy, entropy_clip, minmax, percentile
from ._rounding import fit_nearest
from ._soft_rounding import PUSH, RATE, push_exponent, soft_variable, stretched
from ._solve import broken_promise, knows, solve
from ._tables import fixed_table
from ._weighted import awq, weighted

__all__ = [
    "CARDS",
    "CASTS",
    "CONCRETE",
    "PUSH",
    "RATE",
    "ROUNDING_DAMPING",
    "ActivationQuantizer",
    "Coded",
    "DynamicQuantizer",
    "Grid",
    "OutputQuantizer",
    "Params",
    "Rounder",
    "StraightThrough",
    "WeightProblem",
    "activation_entropy",
    "activation_minmax",
    "activation_percentile",
    "adaptive",
    "adaround",
    "affine",
    "affine_qparams",
    "all_codes",
    "auto",
    "awq",
    "best_format",
    "broken_promise",
    "code_range",
    "compensated",
    "decoded",
    "descent",
    "dynamic_quantize",
    "entropy",
    "entropy_clip",
    "fake_quantize",
    "fit_nearest",
    "fixed_table",
    "from_groups",
    "gptq",
    "hqq",
    "kmeans",
    "knows",
    "minmax",
    "mse_range",
    "neighbours",
    "percentile",
    "push_exponent",
    "soft_variable",
    "solve",
    "stretched",
    "symmetric_qparams",
    "to_groups",
    "weighted",
]
