"""What to try next: searchers behind one protocol (`Searcher`), made by name (`make_searcher`)."""

from ._archive import ELITE, Archive, violation_of
from ._base import Reporting, SearchContext, Searcher
from ._budget import Budget, lowered
from ._evolution import EvolutionSearcher
from ._hypervolume_improvement import gain, hypervolume_gain, improvement
from ._local_search import KEPT, refined
from ._offspring import Steps, offspring
from ._policy import Policy
from ._prediction_discount import MOST, PRIOR, Credit
from ._prediction_log import ENOUGH, WINDOW, Forecasts, rank_correlation
from ._random import RandomSearcher
from ._registry import SEARCHERS, SearcherInfo, check_searcher, make_searcher, register_searcher, uses_table
from ._round_robin import TakingTurns, guides_of, limits_of
from ._surrogate import Surrogate
from ._survival import Survival, constrained_ranks, reference_directions, survivors

__all__ = [
    "ELITE",
    "ENOUGH",
    "KEPT",
    "MOST",
    "PRIOR",
    "SEARCHERS",
    "WINDOW",
    "Archive",
    "Budget",
    "Credit",
    "EvolutionSearcher",
    "Forecasts",
    "Policy",
    "RandomSearcher",
    "Reporting",
    "SearchContext",
    "Searcher",
    "SearcherInfo",
    "Steps",
    "Surrogate",
    "Survival",
    "TakingTurns",
    "check_searcher",
    "constrained_ranks",
    "gain",
    "guides_of",
    "hypervolume_gain",
    "improvement",
    "limits_of",
    "lowered",
    "make_searcher",
    "offspring",
    "rank_correlation",
    "reference_directions",
    "refined",
    "register_searcher",
    "survivors",
    "uses_table",
    "violation_of",
]
