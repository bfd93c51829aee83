"""Searchers: they propose the next candidates, behind one protocol (`Searcher`), made by name (`make_searcher`).

They are told of trials and read no file. They know `values` and `allocation`. Begin with `_base.py` (the protocol) and
`_evolution.py` (the default). A new searcher is one file here and a line in `_registry.py`.
"""

from ._archive import ELITE, Archive, violation_of
from ._base import Reporting, SearchContext, Searcher
from ._budget import Budget, lowered
from ._cards import CARDS
from ._evolution import EvolutionSearcher
from ._hypervolume_improvement import hypervolume_gain, hypervolume_improvement, improvement
from ._local_search import KEPT, local_search
from ._offspring import Steps, offspring
from ._optuna import SAMPLERS, short_name
from ._policy import Policy
from ._prediction_discount import DISCOUNT_WINDOW, MAX_FACTOR, PRIOR_WEIGHT, PredictionDiscount
from ._prediction_log import LOG_WINDOW, MIN_PREDICTIONS, PredictionLog, rank_correlation
from ._random import RandomSearcher
from ._registry import (
    SEARCHERS,
    SearcherInfo,
    canonical_name,
    check_searcher,
    make_searcher,
    register_searcher,
    uses_table,
)
from ._round_robin import RoundRobinSearcher
from ._shrunk_table import shrunk_table
from ._surrogate import Surrogate
from ._survival import Survival, constrained_ranks, reference_directions, survivors

__all__ = [
    "CARDS",
    "DISCOUNT_WINDOW",
    "ELITE",
    "KEPT",
    "LOG_WINDOW",
    "MAX_FACTOR",
    "MIN_PREDICTIONS",
    "PRIOR_WEIGHT",
    "SAMPLERS",
    "SEARCHERS",
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
    "canonical_name",
    "check_searcher",
    "constrained_ranks",
    "hypervolume_gain",
    "hypervolume_improvement",
    "improvement",
    "local_search",
    "lowered",
    "make_searcher",
    "offspring",
    "rank_correlation",
    "reference_directions",
    "register_searcher",
    "short_name",
    "shrunk_table",
    "survivors",
    "uses_table",
    "violation_of",
]
