"""A config without a search: each strategy one call (`plan`) and one command. Baselines, and seeds of a search."""

from ._fp16_mse import THRESHOLD
from ._seeds import planned_seeds
from ._strategies import SLACK, STRATEGIES

__all__ = ["SLACK", "STRATEGIES", "THRESHOLD", "planned_seeds"]
