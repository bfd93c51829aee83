"""What to try next: searchers behind one protocol (`Searcher`), made by name (`make_searcher`)."""

from ._base import Objective, Reporting, SearchContext, Searcher, SensitivityTable
from ._registry import SEARCHERS, SearcherInfo, check_searcher, make_searcher, register_searcher, uses_table
from ._superposition import OutputShifts

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
