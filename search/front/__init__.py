"""Points of a run that a user reads, made from its trials: selection, picks, recommendations.

It only reads the ledger. It knows `run`, `space` and `devices`. Begin with `_points.py`; `_front.py` has the values
`Front` and `Point`. A new rule for recommendations belongs in `_points.py`.
"""

from ._front import Front, LostBaseline, Point
from ._on_device import OnDevice
from ._points import front_of, holm, nearest, selection_of, selections_of
from ._select import baseline_of, select

__all__ = [
    "Front",
    "LostBaseline",
    "OnDevice",
    "Point",
    "baseline_of",
    "front_of",
    "holm",
    "nearest",
    "select",
    "selection_of",
    "selections_of",
]
