"""Choice of the outputs that are compared with the original's, before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...errors import TaskError
from ..task import told
from ._causal import check_causal, check_decoder_ids

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...compressors.anatomy import Outputs
    from ...evaluators import Metric, OutputDistance, Split
    from ..task import Splits, Task

_SHOWN = 6
_NO_PAIRS = "return the vectors, or the scores of candidates that each sample brings, and no scores of all pairs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Comparison of outputs with the original's.

    metric      the task's metric, which knows its output and class axis
    batch_size  samples of one pass: the task's, or fewer where the outputs are large
    notes       lines on the outputs of a model with several, and on batches that are smaller
    """

    distance: OutputDistance
    metric: Metric
    batch_size: int
    notes: tuple[str, ...] = ()


def compared_outputs(task: Task, model: nn.Module, splits: Splits, metric: Metric) -> Compared:
    """Decide how outputs are compared.

    A few samples tell which outputs the model has and where the classes lie. Several outputs are scaled by their
    variances on the calibration split.
    Raises `TaskError` for an output in [quality] outputs that is not there or has no sample axis, and `MetricError`
    where the class axis is ambiguous, or not known though the divergence needs it.
    """
    from ...evaluators import OutputDistance, resolve_divergence
    from ...evaluators.quality import unknown_class_axis

    sample = splits.search.take(1)
    check_decoder_ids(model, splits.search, metric)
    outputs, notes = _outputs(model, splits.search, task.data.batch_size)
    targets, weights = metric.targets_of(sample), _weights(task, outputs)
    if weights and (task.quality.outputs or notes):
        metric = replace(metric, output=next(iter(weights)))
    metric, more = _of_structure(metric, outputs, targets)
    notes += more
    read = metric.read(outputs)
    check_causal(model, splits.search, metric, sample)
    axis = metric.class_axis_of(read, targets)
    kind = resolve_divergence(task.quality.divergence, metric)
    if axis is None and kind == "kl" and not metric.reads_classes:  # a metric of classes says itself what it expects
        raise unknown_class_axis(read.shape, targets)
    metric = replace(metric, class_axis=axis)
    batch_size, line = _batch_size(task, outputs, splits)
    notes += line
    if not weights:
        distance = OutputDistance.of_one(kind, class_axis=axis)
    else:
        variances = _variances(model, splits.calibration, batch_size, list(weights))
        distance = OutputDistance.of_variances(variances, kind, weights, class_axis=axis)
        notes = (*_described(outputs, distance, metric), *notes)
    return Compared(distance=distance, metric=metric, batch_size=batch_size, notes=notes)


def _batch_size(task: Task, outputs: Outputs, splits: Splits) -> tuple[int, tuple[str, ...]]:
    """(samples of one pass, a line where they are fewer than the task says). `outputs` are those of one sample."""
    from ...evaluators.values import bounded_batch, output_bytes

    asked, size = task.data.batch_size, output_bytes(outputs)
    bounded = bounded_batch(asked, size)
    most = max(len(split) for split in (splits.calibration, splits.search, splits.report))
    if bounded >= min(asked, most):
        return bounded, ()
    line = f"{bounded} samples run at a time, not {asked}: the outputs of one take {size / 1e6:.0f} MB"
    return bounded, (line,)


def _variances(model: nn.Module, split: Split, batch_size: int, names: Sequence[str]) -> dict[str, float]:
    """Variance of each of these outputs over the real positions of the split. Raises `TaskError` where one is missing
    from a batch, or has another shape there."""
    from ...compressors.anatomy import named_tensors, output_masks, real_values
    from ...evaluators import run_batches
    from ...evaluators.values import RunningVariance

    found = {name: RunningVariance() for name in names}
    shapes: dict[str, tuple[int, ...]] = {}
    at = 0
    for outputs in run_batches(model, split, batch_size):
        rows = split.between(at, at + len(outputs))
        at += len(outputs)
        tensors, real = named_tensors(outputs), output_masks(outputs, rows.inputs, rows.mask, model=model)
        for name, variance in found.items():
            tensor = tensors.get(name)
            if tensor is None or shapes.setdefault(name, tensor.shape[1:]) != tensor.shape[1:]:
                raise TaskError(
                    f"the model returned other outputs for the calibration split than for one sample "
                    f"({', '.join(names)}); let its forward return the same outputs for every batch"
                )
            variance.add(real_values(tensor, real.get(name)))
    return {name: variance.value for name, variance in found.items()}


def _of_structure(metric: Metric, outputs: Outputs, targets: Tensor | None) -> tuple[Metric, tuple[str, ...]]:
    """Let a user's metric that is written for one tensor have one: (metric, a note).

    A metric that raises on the outputs in the model's own structure, and does not on the first of them, is such a one.
    """
    from ...compressors.anatomy import NamedOutputs, primary_name

    if not metric.reads_all or not isinstance(outputs, NamedOutputs):
        return metric, ()
    given = None if not metric.needs_reference else outputs
    single = replace(metric, reads_all=False)
    try:
        metric.scores(outputs, targets, given)
    except Exception as error:  # the user's code may raise anything; the metric is tried in another way
        try:
            single.scores(outputs, targets, given)
        except Exception:  # it fails in both ways: the first error is told when the original is judged
            return metric, ()
        name, given_as = single.output or primary_name(outputs), type(outputs.structure()).__name__
        line = (
            f"quality.metric {metric.name} reads the output {name} alone, for it raises on all outputs together "
            f"({told(error)}); to read others, let it take a {given_as} of {_listed(outputs.names)}"
        )
        return single, (line,)
    return metric, ()


def _described(outputs: Outputs, distance: OutputDistance, metric: Metric) -> tuple[str, ...]:
    """Line on what is compared, of which outputs."""
    from ...compressors.anatomy import NamedOutputs, primary_name

    if not isinstance(outputs, NamedOutputs):
        return ()
    rest = [name for name in outputs.names if name not in distance.names]
    line = f"of the model's outputs, {_listed(distance.names)} are compared with the original's"
    line += f", not {_listed(rest)}" if rest else ""
    if not metric.reads_all:
        line += f"; {metric.name} reads {metric.output or primary_name(outputs)}"
    return (line,)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _outputs(model: nn.Module, split: Split, batch_size: int) -> tuple[Outputs, tuple[str, ...]]:
    """Outputs of one sample, without those whose axis 0 is not the sample: these do not grow with a second one.

    Left out too, with a note, are outputs of which another axis grows with the batch, as (N, N) scores of all pairs.
    """
    from ...compressors.anatomy import NamedOutputs, primary
    from ...evaluators import run_split

    found = run_split(model, split.take(1), 1)
    is_one = not isinstance(found, NamedOutputs)
    if batch_size == 1 or len(split) == 1 or (is_one and 1 not in primary(found).shape[1:]):
        return found, ()  # an axis that grows with the batch has length 1 for one sample
    more = run_split(model, split.take(2), 2)
    if not isinstance(found, NamedOutputs):
        if not isinstance(more, NamedOutputs) and more.shape[1:] != found.shape[1:]:
            raise TaskError(
                f"the model's output is {tuple(found.shape)} for one sample and {tuple(more.shape)} for two, so that "
                f"a sample's output depends on its batch; {_NO_PAIRS}"
            )
        return found, ()
    if not isinstance(more, NamedOutputs):
        raise TaskError(
            f"the model returns {len(found.tensors)} outputs for one sample ({_listed(found.names)}) and one for two; "
            "let its forward return the same outputs for every batch"
        )
    both = [name for name in found.names if name in more.tensors]
    names = [name for name in both if more.tensors[name].shape[1:] == found.tensors[name].shape[1:]]
    if not names:
        raise TaskError(
            f"none of the model's outputs ({', '.join(found.names)}) has the sample as its axis 0, and other axes that "
            "are alike for every batch; let its forward return outputs (N, …)"
        )
    pairs = [name for name in both if name not in names]
    line = f"outputs whose shape depends on the batch are not compared: {_listed(pairs)}"
    return found.only(names), (line,) if pairs else ()


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
