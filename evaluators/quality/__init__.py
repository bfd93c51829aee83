"""Quality of a model's outputs: metrics with an interval, paired comparison, divergence from the original.

It knows `values`. Begin with `_metric.py` (`Metric` and the register). A new metric is one file like `_accuracy.py`; a
new statistical test is one file like `_paired.py`.
"""

from ._accuracy import ACCURACY
from ._class_axis import resolve_class_axis, unknown_class_axis
from ._classes import IGNORED
from ._cosine import COSINE
from ._distance import ComparedOutput, OutputDistance
from ._divergence import checked_divergence, divergence_per_sample, resolve_divergence
from ._error import MetricError
from ._evaluate import Scores, evaluate_outputs, evaluate_parts, evaluate_split
from ._interval import summarise, wilson
from ._metric import METRICS, Divergence, Metric, get_metric, metric_from_callable, register_metric
from ._mse import MSE
from ._paired import PairedResult, paired_test
from ._perplexity import PERPLEXITY
from ._sequential import SequentialTest, critical_value, default_looks, losses_of, value_of_loss

__all__ = [
    "ACCURACY",
    "COSINE",
    "IGNORED",
    "METRICS",
    "MSE",
    "PERPLEXITY",
    "ComparedOutput",
    "Divergence",
    "Metric",
    "MetricError",
    "OutputDistance",
    "PairedResult",
    "Scores",
    "SequentialTest",
    "checked_divergence",
    "critical_value",
    "default_looks",
    "divergence_per_sample",
    "evaluate_outputs",
    "evaluate_parts",
    "evaluate_split",
    "get_metric",
    "losses_of",
    "metric_from_callable",
    "paired_test",
    "register_metric",
    "resolve_class_axis",
    "resolve_divergence",
    "summarise",
    "unknown_class_axis",
    "value_of_loss",
    "wilson",
]

for _builtin in (ACCURACY, PERPLEXITY, MSE, COSINE):
    register_metric(_builtin)
del _builtin
