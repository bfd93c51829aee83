"""Round to nearest with the range of least squared error: the default method, "affine", in every format.

What it does   fits scales, zero points and tables to the weights alone (`_affine`, `_fit`, `_palette`), then rounds
Paper, cost    see there
We differ      the name is that of the first format, symmetric integers, and stands in stored configs; it stays
Did not help   see there
"""

from __future__ import annotations

from ..registry import WEIGHT
from ._fit import fit
from ._grid import CONCRETE
from ._problem import Coded, WeightProblem, nearest


def fit_nearest(problem: WeightProblem) -> Coded:
    return nearest(problem, fit(problem.grid, problem.target))


WEIGHT.register("affine", fit_nearest, formats=CONCRETE)
