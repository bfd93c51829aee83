"""Known methods, written from their descriptions, on the same bench as the product (`Lab`).

Each is made for one budget of bytes. To give a front it is run for several budgets that lie evenly on a logarithmic
scale, and these share what may be spent. Whatever it evaluates on the whole split counts as a point of its front.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..lab import Lab
from ._evopress import evopress
from ._hawq import hawq
from ._spdy import spdy

Rival = Callable[[Lab, np.random.Generator], None]
"""Runs until it has nothing left to do, or the lab raises `BudgetSpent`."""

RIVALS: dict[str, Rival] = {"hawq-v3": hawq, "spdy": spdy, "evopress": evopress}
NEEDS_A_MODEL = frozenset({"hawq-v3"})
"""Those that take gradients, and so cannot play on a synthetic problem."""

__all__ = ["NEEDS_A_MODEL", "RIVALS", "Rival"]
