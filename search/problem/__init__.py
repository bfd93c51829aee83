"""Everything that stands before the first trial: the model, its splits, its space, and what the original gives.

`prepare` makes a `Problem` of a task. Its `EvaluationContext` is what a worker gets. It knows `space`, `devices` and
`searchers`. Begin with `_prepare.py`.
"""

from ._auto_runtime import AUTO, FILE, said, settle_runtime
from ._context import EvaluationContext, judge
from ._prepare import SAME_OUTPUTS, Problem, original_quality, prepare

__all__ = [
    "AUTO",
    "FILE",
    "SAME_OUTPUTS",
    "EvaluationContext",
    "Problem",
    "judge",
    "original_quality",
    "prepare",
    "said",
    "settle_runtime",
]
