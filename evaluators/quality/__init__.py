"""Quality of a model's outputs: metrics with an interval, paired comparison, divergence from the original.

It knows `values`. Begin with `_metric.py` (`Metric` and the register). A new metric is one file like `_accuracy.py`; a
new statistical test is one file like `_paired.py`.
"""

from ._accuracy import ACCURACY
from ._average_precision import AVERAGE_PRECISION
from ._cards import CARDS
from ._class_axis import resolve_class_axis, unknown_class_axis
from ._constants import IGNORED
from ._cosine import COSINE
from ._distance import ComparedOutput, OutputDistance
from ._divergence import checked_divergence, divergence_per_sample, resolve_divergence
from ._error import MetricError
from ._evaluate import Scores, evaluate_batches, evaluate_outputs, evaluate_parts, evaluate_split
from ._f1 import F1, F1_MICRO, f1, f1_micro
from ._interval import summarise, wilson, within
from ._mean_iou import MEAN_IOU
from ._metric import Divergence, Metric, metric_from_callable
from ._mse import MSE
from ._paired import PairedResult, paired_test
from ._perplexity import PERPLEXITY, PERPLEXITY_PER_SEQUENCE
from ._psnr import PSNR, psnr
from ._ranking import HIT_RATE, NDCG, hit_rate, ndcg
from ._register import METRICS, get_metric, known_metric, register_metric
from ._sequential import SequentialTest, critical_value, default_looks, losses_of, value_of_loss
from ._spearman import SPEARMAN
from ._stateful import is_stateful, metric_from_object
from ._token_targets import TargetForm, token_targets
from ._wer import WER, wer

__all__ = [
    "ACCURACY",
    "CARDS",
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
    "TargetForm",
    "checked_divergence",
    "critical_value",
    "default_looks",
    "divergence_per_sample",
    "evaluate_batches",
    "evaluate_outputs",
    "evaluate_parts",
    "evaluate_split",
    "get_metric",
    "is_stateful",
    "known_metric",
    "losses_of",
    "metric_from_callable",
    "metric_from_object",
    "paired_test",
    "register_metric",
    "resolve_class_axis",
    "resolve_divergence",
    "summarise",
    "token_targets",
    "unknown_class_axis",
    "value_of_loss",
    "wilson",
    "within",
]

for _builtin in (
    ACCURACY, PERPLEXITY, PERPLEXITY_PER_SEQUENCE, MSE, COSINE, MEAN_IOU, AVERAGE_PRECISION, SPEARMAN
):  # fmt: skip
    register_metric(_builtin)
for _builtin, _configure in (
    (F1, f1), (F1_MICRO, f1_micro), (PSNR, psnr), (WER, wer), (HIT_RATE, hit_rate), (NDCG, ndcg)
):  # fmt: skip
    register_metric(_builtin, configure=_configure)
del _builtin, _configure
