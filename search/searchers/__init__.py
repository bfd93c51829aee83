"""What to try next: searchers behind one protocol (`Searcher`), made by name (`make_searcher`)."""

from ..values._objective import Objective
from ..values._output_perturbations import OutputShifts
from ..values._sensitivity_table import SensitivityTable
from ._base import Reporting, SearchContext, Searcher
from ._registry import SEARCHERS, SearcherInfo, check_searcher, make_searcher, register_searcher, uses_table

__all__ = [
    "SEARCHERS",
    "Objective",
    "OutputShifts",
    "Reporting",
    "SearchContext",
    "Searcher",
    "SearcherInfo",
    "SensitivityTable",
    "check_searcher",
    "make_searcher",
    "register_searcher",
    "uses_table",
]
