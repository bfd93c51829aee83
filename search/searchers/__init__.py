"""What to try next: searchers behind one protocol (`Searcher`), made by name (`make_searcher`)."""

from ._archive import ELITE, Archive, violation_of
from ._base import Reporting, SearchContext, Searcher
from ._budget import Budget, lowered
from ._evolution import EvolutionSearcher
from ._hypervolume_improvement import hypervolume_gain, hypervolume_improvement, improvement
from ._local_search import KEPT, local_search
from ._offspring import Steps, offspring
from ._policy import Policy
from ._prediction_discount import MOST, PRIOR, PredictionDiscount
from ._prediction_log import ENOUGH, WINDOW, PredictionLog, rank_correlation
from ._random import RandomSearcher
from ._registry import SEARCHERS, SearcherInfo, check_searcher, make_searcher, register_searcher, uses_table
from ._round_robin import RoundRobinSearcher, guides_of, limits_of
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
    "EvolutionSearcher",
    "Policy",
    "PredictionDiscount",
    "PredictionLog",
    "RandomSearcher",
    "Reporting",
    "RoundRobinSearcher",
    "SearchContext",
    "Searcher",
    "SearcherInfo",
    "Steps",
    "Surrogate",
    "Survival",
    "check_searcher",
    "constrained_ranks",
    "guides_of",
    "hypervolume_gain",
    "hypervolume_improvement",
    "improvement",
    "limits_of",
    "local_search",
    "lowered",
    "make_searcher",
    "offspring",
    "rank_correlation",
    "reference_directions",
    "register_searcher",
    "survivors",
    "uses_table",
    "violation_of",
]
