"""Choice of the outputs that are compared with the original's, before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ...errors import TaskError

if TYPE_CHECKING:
    from torch import nn

    from ...compressors.anatomy import Outputs
    from ...evaluators import Inputs, Metric, OutputDistance
    from ..task import Splits, Task


def compared_outputs(task: Task, model: nn.Module, splits: Splits, metric: Metric) -> tuple[OutputDistance, Metric]:
    """Decide how outputs are compared: (distance, the metric that knows its output and class axis).

    A few samples tell which outputs the model has and where the classes lie. Several outputs are scaled by their
    variances on the calibration split.
    Raises `TaskError` for an output in [quality] outputs that is not there or has no sample axis, and `MetricError`
    where the class axis is ambiguous, or not known though the divergence needs it.
    """
    from ...compressors.anatomy import NamedOutputs
    from ...evaluators import OutputDistance, resolve_divergence, run_split
    from ...evaluators.quality import unknown_class_axis

    sample = splits.search.take(1)
    outputs, targets = _outputs(model, sample.inputs, splits.search.take(2).inputs), metric.targets_of(sample)
    weights = _weights(task, outputs)
    if weights and task.quality.outputs:
        metric = replace(metric, output=next(iter(weights)))
    read = metric.read(outputs)
    axis = metric.class_axis_of(read, targets)
    kind = resolve_divergence(task.quality.divergence, metric)
    if axis is None and kind == "kl" and not metric.reads_classes:  # a metric of classes says itself what it expects
        raise unknown_class_axis(read.shape, targets)
    metric = replace(metric, class_axis=axis)
    if not weights:
        return OutputDistance.of_one(kind, class_axis=axis), metric
    original = run_split(model, splits.calibration, task.data.batch_size)
    if not isinstance(original, NamedOutputs) or any(name not in original.tensors for name in weights):
        raise TaskError(
            f"the model returned other outputs for the calibration split than for one sample ({', '.join(weights)}); "
            "let its forward return the same outputs for every batch"
        )
    return OutputDistance.of_several(original, kind, weights, class_axis=axis), metric


def _outputs(model: nn.Module, one: Inputs, two: Inputs) -> Outputs:
    """Outputs of one sample, without those whose axis 0 is not the sample: these do not grow with a second one."""
    from ...compressors.anatomy import NamedOutputs
    from ...evaluators import Split, run_split

    found, more = (run_split(model, Split("search", inputs), 2) for inputs in (one, two))
    if not isinstance(found, NamedOutputs) or not isinstance(more, NamedOutputs):
        return found
    names = [name for name in found.names if name in more.tensors]
    if not names:
        raise TaskError(
            f"none of the model's outputs ({', '.join(found.names)}) has the sample as its axis 0; let its forward "
            "return outputs (N, …)"
        )
    return found.only(names)


def _weights(task: Task, outputs: Outputs) -> Mapping[str, float]:
    """Name -> weight of the compared outputs, in order; the first is read by a metric of one tensor."""
    from ...compressors.anatomy import NamedOutputs, compared_tensors, primary_name

    asked = task.quality.outputs
    if not isinstance(outputs, NamedOutputs):
        if asked:
            raise TaskError(
                f"quality.outputs names {', '.join(asked)}, and the model has one output; leave outputs out"
            )
        return {}
    if not asked:
        first = primary_name(outputs)
        return dict.fromkeys((first, *(name for name in compared_tensors(outputs) if name != first)), 1.0)
    for name in asked:
        if name not in outputs.tensors:
            raise TaskError(
                f"quality.outputs names {name!r}; the model's outputs with the sample as axis 0 are "
                f"{', '.join(outputs.names)}"
            )
        if not outputs.tensors[name].is_floating_point():
            raise TaskError(
                f"quality.outputs names {name!r}, which is {outputs.tensors[name].dtype}; only floating-point outputs "
                f"are compared ({', '.join(compared_tensors(outputs))})"
            )
    if not isinstance(asked, Mapping):
        return dict.fromkeys(asked, 1.0)
    first = primary_name(outputs.only([name for name in outputs.names if name in asked]))  # a table has no order
    return {name: asked[name] for name in (first, *(name for name in outputs.names if name in asked and name != first))}
