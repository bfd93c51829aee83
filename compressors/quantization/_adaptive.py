"""The best of several: of methods for one format (the method "adaptive"), of formats for one method (the format).

What it does   solves the layer by each, and keeps the one of least error of the layer's output on calibration data
Paper          the choice of a data type for each layer is an old one; the measure is GPTQ's (Frantar et al. 2023)
We differ      among formats only those are looked at that need no more bytes than integers of that width and group with
               FP32 scales: with `scale_bits = 16` there is room for zero points and a table (and for the byte that
               names the winner)
Cost           the sum of what is tried: as a method four times "gptq", as a format five times its method
Did not help   as a method at 5 bits and above, where all are alike
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from ..registry import WEIGHT
from ..values import formats
from ._descent import descent
from ._gptq import gptq
from ._grid import CASTS, CONCRETE
from ._problem import Coded, WeightProblem, decoded
from ._rounding import fit_nearest
from ._weighted import awq, weighted

_METHODS = (descent, gptq, awq, weighted, fit_nearest)


def adaptive(problem: WeightProblem) -> Coded:
    """Choose the method of least output error; of equal ones the first."""
    return min((method(problem) for method in _METHODS), key=lambda found: problem.output_error(decoded(found)))


def best_format(
    problem: WeightProblem,
    solve: Callable[[WeightProblem], Coded],
    n_bytes: Callable[[Coded], int],
    known: tuple[str, ...],
) -> Coded:
    """Run `solve` in each concrete format that the method knows, and keep the best of those that are cheap enough."""
    names = [name for name in formats(problem.grid.bits) if name in known and name not in CASTS and name in CONCRETE]
    found = [solve(replace(problem, grid=problem.grid.as_format(name))) for name in names]
    plain = found[names.index("int")]
    room = plain.params.scale.numel() * (torch.float32.itemsize - plain.grid.dtype.itemsize)
    fitting = [each for each in found if n_bytes(each) <= n_bytes(plain) + room]
    return min(fitting, key=lambda each: problem.output_error(decoded(each)))


WEIGHT.register("adaptive", adaptive, formats=CONCRETE, needs="moments")
