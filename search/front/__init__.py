"""Points of a run that a user reads, made from its trials: selection, picks, recommendations.

It only reads the ledger. It knows `run`, `space` and `devices`. Begin with `_points.py`; `_front.py` has the values
`Front` and `Point`. A new rule for recommendations belongs in `_stars.py`, a new pick in `_picks.py`.
"""

from ._cost_scale import NOISY
from ._front import Front, LostBaseline, Point, Rival
from ._on_device import OnDevice
from ._points import front_of, nearest, pairs_to_compare, selection_of, selections_of
from ._select import baseline_of, is_baseline, select
from ._stars import holm

__all__ = [
    "NOISY",
    "Front",
    "LostBaseline",
    "OnDevice",
    "Point",
    "Rival",
    "baseline_of",
    "front_of",
    "holm",
    "is_baseline",
    "nearest",
    "pairs_to_compare",
    "select",
    "selection_of",
    "selections_of",
]
