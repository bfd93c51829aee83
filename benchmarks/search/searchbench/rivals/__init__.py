"""Known methods, written from their descriptions, on the same bench as the product (`Lab`).

Each is made for one budget of bytes. To give a front it is run for several budgets that lie evenly on a logarithmic
scale, and these share what may be spent. Whatever it evaluates on the whole split counts as a point of its front.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..lab import Lab
from ._amq import amq
from ._evopress import evopress
from ._fisher import fisher, prismaquant
from ._hawq import hawq
from ._lems import lems
from ._spdy import spdy

Rival = Callable[[Lab, np.random.Generator], None]
"""Runs until it has nothing left to do, or the lab raises `BudgetSpent`."""


def uniform(lab: Lab, rng: np.random.Generator) -> None:
    """Nothing beyond the uniform settings, which every searcher is told."""


RIVALS: dict[str, Rival] = {
    "hawq-v3": hawq, "spdy": spdy, "evopress": evopress, "fisher": fisher, "prismaquant": prismaquant, "lems": lems,
    "amq": amq, "uniform": uniform,
}  # fmt: skip
NEEDS_A_MODEL = frozenset({"hawq-v3", "fisher", "prismaquant"})
"""Those that take gradients, and so cannot play on a synthetic problem."""
NEEDS_LABELS = frozenset({"hawq-v3"})
"""Those that take second derivatives of the cross entropy."""
ONE_SEED = frozenset({"prismaquant", "fisher", "uniform"})
"""Those in which nothing is drawn, so long as there are labels."""
QUANTIZERS = {
    "hawq-v3": "minmax", "spdy": "gptq", "evopress": "gptq", "amq": "hqq", "lems": "gptq", "prismaquant": "minmax",
    "fisher": "gptq",
}  # fmt: skip
"""Rival -> the quantizer of weights that its own code takes, or the best that it names; played as NAME@METHOD."""

__all__ = ["NEEDS_A_MODEL", "NEEDS_LABELS", "ONE_SEED", "QUANTIZERS", "RIVALS", "Rival"]
