"""Other limits, another budget or another device, answered from the ledger of a run in seconds.

Nothing is evaluated: a predictor is fitted to the trials, and a programme over the levels keeps the limits. It knows
`front`, `allocation` and `searchers`. Begin with `_resolve.py`.
"""

from ._isotonic import Falling
from ._predictor import Predictor, Trust
from ._resolve import Evaluated, Resolution, Resolved, resolve

__all__ = ["Evaluated", "Falling", "Predictor", "Resolution", "Resolved", "Trust", "resolve"]
