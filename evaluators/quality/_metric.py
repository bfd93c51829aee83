"""Metrics as values."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ...compressors.anatomy import Outputs, classes_last, compared_tensors, named_tensors, primary
from ..values import Split
from ._class_axis import LAST, resolve_class_axis
from ._constants import IGNORED
from ._error import MetricError

Divergence = Literal["kl", "mse"]
PerSample = Callable[[Any, Tensor | None, Any], Tensor]


def _identity(value: float) -> float:
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """Metric: a row of numbers for each sample, and the conversion of all rows to the figure that people read.

    A row is one score, and the figure is `finish` of their mean. Or it is (sum, weight), and the figure is `finish` of
    the sum of all sums over the sum of all weights: a mean over tokens or positions. Or it is anything that `aggregate`
    turns into a figure of the whole data set; then no trial is stopped early by this metric, and intervals and tests
    resample the rows.

    name             as in a task: lower case letters, digits and `_`
    maximise         whether more is better
    per_sample       (outputs (N, …), targets (N, …) or None, reference outputs or None) -> scores (N,), or rows (N, K)
                     where `weight` or `aggregate` is given
    unit             "fraction" where a score is a share of right answers (a 0/1 score then gets Wilson's interval)
    finish           monotone; from the mean to the figure (perplexity: exp)
    weight           from targets to the weights (N,) of rows (sum, weight)
    aggregate        from rows (N, K) to the figure; `MetricError` where it is not defined
    resamples        how often `aggregate` is computed for an interval, and for a paired test
    range            least and greatest possible figure; no interval leaves it
    needs_reference  whether `per_sample` compares with the outputs of the original model
    needs_targets    whether a split without targets is refused
    targets_from     from a split to the targets that count, where that is more than reading them (perplexity: the next
                     token, unless the split has targets)
    masks            whether positions that a mask hides are left out (`Split.output_positions`)
    frames           whether outputs are frames (N, T, …) of which targets of another length are read: those that a mask
                     hides arrive as NaN, or as -1 where outputs are integers
    divergence       how far outputs are from the original's, as suits this metric; None: by the targets
    reads_classes    whether `per_sample` reads class logits: it then gets outputs and reference with the classes last
    class_axis       axis of the outputs on which the classes lie; None: by the targets' shape (`class_axis_of`)
    output           name of the one output that `per_sample` reads; None: "logits", or the first (`primary`)
    reads_all        whether `per_sample` gets several outputs in the structure in which the model returns them
    """

    name: str
    maximise: bool
    per_sample: PerSample
    unit: str = ""
    finish: Callable[[float], float] = _identity
    weight: Callable[[Tensor], Tensor] | None = None
    aggregate: Callable[[Tensor], float] | None = None
    resamples: int = 500
    range: tuple[float, float] = (-math.inf, math.inf)
    needs_reference: bool = False
    needs_targets: bool = True
    targets_from: Callable[[Split], Tensor] | None = None
    masks: bool = False
    frames: bool = False
    divergence: Divergence | None = None
    reads_classes: bool = False
    class_axis: int | None = None
    output: str | None = None
    reads_all: bool = False

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise MetricError(f"a metric's name must be letters, digits and _, got {self.name!r}; it is a key in tasks")

    @property
    def is_mean(self) -> bool:
        """Tell whether the figure comes from a mean of samples, so that a part of them estimates it without bias."""
        return self.aggregate is None

    def targets_of(self, split: Split) -> Tensor | None:
        """Targets of the split, or those inferred. Raises `MetricError` where they are needed and missing."""
        if self.targets_from is not None:
            return self.targets_from(split)
        if split.targets is None and self.needs_targets:
            raise MetricError(
                f"{self.name} needs targets, and the {split.name} split has none; "
                "return (inputs, targets) from the data factory, or choose a metric that needs none (cosine)"
            )
        return split.targets

    def counted_of(self, split: Split) -> Tensor | None:
        """Positions (N, T) of the outputs that count; None where all do, or the metric knows nothing of masks."""
        return split.output_positions() if self.masks or self.frames else None

    def mean_weight(self, split: Split) -> float:
        """Mean weight of the split's samples, for metrics with rows (sum, weight); it does not depend on the model."""
        targets = self.targets_of(split)
        if self.weight is None or targets is None:
            return 1.0
        return float(self.weight(_hidden(targets, self.counted_of(split))).double().mean())

    def kind_of_mean(self, split: Split) -> str:
        """Say how the figure comes from the samples of the split; "" for a mean in which they all count alike, of all
        that they hold.
        """
        targets, counted = self.targets_of(split), self.counted_of(split)
        if not self.is_mean:
            return "a figure of all samples together"
        if self.weight is None or targets is None:
            is_whole = counted is None or bool(counted.all()) or self.targets_from is not None
            return "" if is_whole else "a mean over what no mask hides"
        weights = self.weight(_hidden(targets, counted))
        if bool((weights == weights[0]).all()) and (counted is None or bool(counted.all())):
            return ""
        return "the mean over what counts in all samples together (tokens or positions), not over samples"

    def class_axis_of(self, outputs: Tensor, targets: Tensor | None) -> int | None:
        """Axis of `outputs` (N, …) on which the classes lie (`resolve_class_axis`); None where no classes are found."""
        prefer_last = self.targets_from is not None  # a metric of tokens: logits (N, T, V)
        return resolve_class_axis(outputs.shape, targets, self.class_axis, prefer_last=prefer_last)

    def read(self, outputs: Outputs) -> Tensor:
        """Output that a metric of one tensor reads. Raises `MetricError` where the model has none of its name."""
        if isinstance(outputs, Tensor):
            return outputs
        if self.output is not None and self.output not in outputs.tensors:
            raise MetricError(f"{self.name} reads the output {self.output}; the model has {', '.join(outputs.names)}")
        return primary(outputs, self.output)

    def scores(
        self, outputs: Outputs, targets: Tensor | None, reference: Outputs | None = None, counted: Tensor | None = None
    ) -> Tensor:
        """Rows (N,) or (N, K) float64 of `per_sample`, checked to be finite.

        counted  (N, T) positions of the outputs that count; None: all

        Raises `MetricError` with the expected shape and the one that came. It is also raised where `outputs` hold NaN
        or +inf, as an argmax over those would be meaningless.
        """
        if self.needs_reference and reference is None:
            raise MetricError(f"{self.name} compares with the outputs of the original model; hand in its `reference`")
        for part in compared_tensors(outputs).values() if self.reads_all else (self.read(outputs),):
            if part.dim() == 0:
                raise MetricError(f"{self.name}: expected outputs (N, …), one for each sample, got a scalar")
            _no_nan(self.name, part)
        rows = self._checked_shape(self.per_sample(*self._given(outputs, targets, reference, counted)), outputs)
        if not bool(torch.isfinite(rows).all()):
            flat = rows.reshape(len(rows), -1)
            broken = (~torch.isfinite(flat)).any(dim=1)
            first = int(broken.nonzero()[0])
            odd = flat[first][~torch.isfinite(flat[first])][0]
            raise MetricError(
                f"{self.name} must be finite for every sample, got {float(odd)} for sample {first} "
                f"({int(broken.sum())} of {len(rows)} are not finite)"
            )
        return rows

    def _checked_shape(self, rows: object, outputs: Outputs) -> Tensor:
        """Rows as float64 on the CPU. Raises `MetricError` for another type or shape."""
        n = len(outputs)
        if not isinstance(rows, Tensor):
            raise MetricError(
                f"{self.name} must return a tensor of shape ({n},), one score for each sample, got "
                f"{type(rows).__name__}; do not take the mean, paredown does"
            )
        has_rows = self.weight is not None or self.aggregate is not None
        if tuple(rows.shape) != (n,) and not (has_rows and rows.dim() == 2 and rows.shape[0] == n):
            came = ", ".join(f"{name} {tuple(x.shape)}".strip() for name, x in named_tensors(outputs).items())
            raise MetricError(
                f"{self.name} must return one score for each sample: expected shape ({n},), got {tuple(rows.shape)} "
                f"for outputs {came}; do not take the mean over samples, paredown does"
            )
        if rows.is_complex():
            raise MetricError(f"{self.name} must return real scores, got {rows.dtype}")
        return rows.detach().cpu().double()

    def _given(
        self, outputs: Outputs, targets: Tensor | None, reference: Outputs | None, counted: Tensor | None
    ) -> tuple[Any, Tensor | None, Any]:
        """Arguments of `per_sample`."""
        if self.reads_all:
            return _structure(outputs), targets, None if reference is None else _structure(reference)
        mine, original = self.read(outputs), None if reference is None else self.read(reference)
        if self.reads_classes and targets is not None:
            axis = self.class_axis_of(mine, targets)
            mine = classes_last(mine, LAST if axis is None else axis)
            original = None if original is None else classes_last(original, LAST if axis is None else axis)
        if self.frames and counted is not None and not bool(counted.all()):
            mine = _without_frames(self.name, mine, counted)
        if self.masks and counted is not None and mine.shape[:2] == counted.shape:
            targets = None if targets is None else _hidden(targets, counted)
            if original is not None and original.shape == mine.shape:
                mine, original = _zeroed(mine, counted), _zeroed(original, counted)
        return mine, targets, original

    def value(self, rows: Tensor) -> float:
        """Figure of these rows (N,) or (N, K). Raises `MetricError` where it is not finite."""
        rows = rows.double()
        if self.aggregate is not None:
            value, of = self.aggregate(rows), f"of {len(rows)} samples"
        else:
            mean = self.mean(rows)
            value, of = self.finish(mean), f"the mean score is {mean}"
        if not math.isfinite(value):
            raise MetricError(f"{self.name} is {value} ({of}); it must be a finite number")
        return value

    def mean(self, rows: Tensor) -> float:
        """Mean of scores (N,), or sum over weight of rows (N, 2). Raises `MetricError` where nothing has a weight."""
        if rows.dim() == 1:
            return float(rows.mean())
        total, weight = rows.sum(dim=0).tolist()
        if weight <= 0:
            raise MetricError(f"{self.name}: none of the {len(rows)} samples has a target that counts")
        return float(total / weight)

    def compact(self, rows: Tensor) -> Tensor:
        """Rows (sum, weight) of one weight as scores (N,), which give the same figure; other rows as they are."""
        has_weights = (
            rows.dim() == 2 and rows.shape[1] == 2 and self.weight is not None and self.is_mean and len(rows) > 0
        )
        if has_weights and bool((rows[:, 1] == rows[0, 1]).all()) and float(rows[0, 1]) > 0:
            return rows[:, 0] / rows[:, 1]
        return rows

    def is_better(self, a: float, b: float) -> bool:
        return a > b if self.maximise else a < b


def metric_from_callable(
    function: Callable[..., Tensor], name: str, maximise: bool, *, unit: str = "", divergence: Divergence | None = None
) -> Metric:
    """Metric from a user's `function(outputs, targets) -> scores (N,)`.

    A model of several outputs hands them over in its own structure (a tuple, a dict, …). A third argument named
    `reference` makes the function get the original model's outputs. Targets may be None.
    """
    if not callable(function):
        raise MetricError(f"the metric {name!r} must be a function (outputs, targets) -> scores (N,), got {function!r}")
    wants_reference = "reference" in _parameters(function)

    def per_sample(outputs: Any, targets: Tensor | None, reference: Any) -> Tensor:
        if wants_reference:
            return function(outputs, targets, reference=reference)
        return function(outputs, targets)

    return Metric(
        name=name,
        maximise=maximise,
        per_sample=per_sample,
        unit=unit,
        needs_reference=wants_reference,
        needs_targets=False,
        divergence=divergence,
        reads_all=True,
    )


def _parameters(function: Callable[..., Tensor]) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(function).parameters)
    except ValueError:  # some built-in functions do not tell their signature
        return ()


def _hidden(targets: Tensor, counted: Tensor | None) -> Tensor:
    """Targets (N, T, …) with those left out that do not count: -100, or NaN for floating point."""
    if counted is None or targets.dim() < 2 or targets.shape[:2] != counted.shape:
        return targets
    hide = ~counted.to(targets.device).reshape(*counted.shape, *(1,) * (targets.dim() - 2))
    if targets.is_floating_point():
        return targets.masked_fill(hide, math.nan)
    return (targets.long() if targets.dtype == torch.bool else targets).masked_fill(hide, IGNORED)


def _without_frames(name: str, outputs: Tensor, counted: Tensor) -> Tensor:
    """Outputs (N, T, …) with hidden frames marked. Raises `MetricError` where nobody knows which frames are hidden."""
    if outputs.shape[:2] != counted.shape:
        raise MetricError(
            f"{name}: the mask has {counted.shape[1]} positions and the outputs {tuple(outputs.shape)} have other "
            "ones, so that hidden frames cannot be told; use a model of transformers that shortens its mask "
            "(_get_feature_vector_attention_mask), or give samples of one length without a mask"
        )
    hidden = ~counted.to(outputs.device).reshape(*counted.shape, *(1,) * (outputs.dim() - 2))
    return outputs.masked_fill(hidden, math.nan if outputs.is_floating_point() else -1)


def _zeroed(outputs: Tensor, counted: Tensor) -> Tensor:
    return outputs.masked_fill(~counted.to(outputs.device).reshape(*counted.shape, *(1,) * (outputs.dim() - 2)), 0)


def _structure(outputs: Outputs) -> Any:
    """Outputs as the user's metric gets them: one tensor, or several in the model's own structure."""
    if isinstance(outputs, Tensor):
        return outputs
    return outputs.structure() if len(outputs.tensors) > 1 else primary(outputs)


def _no_nan(name: str, outputs: Tensor) -> None:
    if not outputs.is_floating_point():
        return
    # -inf is how a model masks an answer; NaN and +inf are accidents
    broken = outputs.isnan() | outputs.isposinf()
    if bool(broken.any()):
        rows = broken.reshape(len(outputs), -1).any(dim=1)
        raise MetricError(
            f"{name}: the model's outputs hold NaN or +inf for {int(rows.sum())} of {outputs.shape[0]} samples "
            f"(the first is sample {int(rows.nonzero()[0])})"
        )
