"""Everything that stands before the first trial: the model, its splits, its space, and the quality of the original.

`prepare` makes a `Problem` of a task. Its `EvaluationContext` is what a worker gets. It knows `space`, `devices` and
`searchers`. Begin with `_prepare.py`.
"""

from ._auto_runtime import AUTO, FILE, RuntimeTrial, choose_runtime, describe_runtime_choice, settle_runtime
from ._context import EvaluationContext
from ._objectives import SAME_OUTPUTS
from ._prepare import prepare, repair_inputs_of
from ._problem import Problem
from ._quality import judge, original_quality
from ._source import describe_larger

__all__ = [
    "AUTO",
    "FILE",
    "SAME_OUTPUTS",
    "EvaluationContext",
    "Problem",
    "RuntimeTrial",
    "choose_runtime",
    "describe_larger",
    "describe_runtime_choice",
    "judge",
    "original_quality",
    "prepare",
    "repair_inputs_of",
    "settle_runtime",
]
