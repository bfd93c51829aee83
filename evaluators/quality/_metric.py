"""Metrics as values, and the register of named ones."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from ...compressors.anatomy import Outputs, classes_last, compared_tensors, named_tensors, primary
from ..values import Inputs, Split
from ._class_axis import LAST, resolve_class_axis
from ._error import MetricError

Divergence = Literal["kl", "mse"]
PerSample = Callable[[Any, Tensor | None, Any], Tensor]


def _identity(value: float) -> float:
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """Metric: one score for each sample, and the conversion of their mean to the figure that people read.

    name             as in a task: lower case letters, digits and `_`
    maximise         whether more is better
    per_sample       (outputs (N, …), targets (N, …) or None, reference outputs or None) -> scores (N,)
    unit             "fraction" where a score is a share of right answers (a 0/1 score then gets Wilson's interval)
    finish           monotone; from the mean score to the figure (perplexity: exp)
    needs_reference  whether `per_sample` compares with the outputs of the original model
    needs_targets    whether a split without targets is refused
    infer_targets    from a split's inputs to its targets, for a split that has none (perplexity: the next token)
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
    needs_reference: bool = False
    needs_targets: bool = True
    infer_targets: Callable[[Inputs], Tensor] | None = None
    divergence: Divergence | None = None
    reads_classes: bool = False
    class_axis: int | None = None
    output: str | None = None
    reads_all: bool = False

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise MetricError(f"a metric's name must be letters, digits and _, got {self.name!r}; it is a key in tasks")

    def targets_of(self, split: Split) -> Tensor | None:
        """Targets of the split, or those inferred. Raises `MetricError` where they are needed and missing."""
        if split.targets is not None:
            return split.targets
        if self.infer_targets is not None:
            return self.infer_targets(split.inputs)
        if self.needs_targets:
            raise MetricError(
                f"{self.name} needs targets, and the {split.name} split has none; "
                "return (inputs, targets) from the data factory, or choose a metric that needs none (cosine)"
            )
        return None

    def class_axis_of(self, outputs: Tensor, targets: Tensor | None) -> int | None:
        """Axis of `outputs` (N, …) on which the classes lie (`resolve_class_axis`); None where no classes are found."""
        prefer_last = self.infer_targets is not None  # a metric of tokens: logits (N, T, V)
        return resolve_class_axis(outputs.shape, targets, self.class_axis, prefer_last=prefer_last)

    def read(self, outputs: Outputs) -> Tensor:
        """Output that a metric of one tensor reads. Raises `MetricError` where the model has none of its name."""
        if isinstance(outputs, Tensor):
            return outputs
        if self.output is not None and self.output not in outputs.tensors:
            raise MetricError(f"{self.name} reads the output {self.output}; the model has {', '.join(outputs.names)}")
        return primary(outputs, self.output)

    def scores(self, outputs: Outputs, targets: Tensor | None, reference: Outputs | None = None) -> Tensor:
        """Scores (N,) float64 of `per_sample`, checked to be finite.

        Raises `MetricError` with the expected shape and the one that came. It is also raised where `outputs` hold NaN
        or +inf, as an argmax over those would be meaningless.
        """
        if self.needs_reference and reference is None:
            raise MetricError(f"{self.name} compares with the outputs of the original model; hand in its `reference`")
        for part in compared_tensors(outputs).values() if self.reads_all else (self.read(outputs),):
            if part.dim() == 0:
                raise MetricError(f"{self.name}: expected outputs (N, …), one for each sample, got a scalar")
            _no_nan(self.name, part)
        scores = self.per_sample(*self._given(outputs, targets, reference))
        n = len(outputs)
        if not isinstance(scores, Tensor):
            raise MetricError(
                f"{self.name} must return a tensor of shape ({n},), one score for each sample, got "
                f"{type(scores).__name__}; do not take the mean, paredown does"
            )
        if tuple(scores.shape) != (n,):
            came = ", ".join(f"{name} {tuple(x.shape)}".strip() for name, x in named_tensors(outputs).items())
            raise MetricError(
                f"{self.name} must return one score for each sample: expected shape ({n},), got {tuple(scores.shape)} "
                f"for outputs {came}; do not take the mean over samples, paredown does"
            )
        if scores.is_complex():
            raise MetricError(f"{self.name} must return real scores, got {scores.dtype}")
        scores = scores.detach().cpu().double()
        if not bool(torch.isfinite(scores).all()):
            first = int((~torch.isfinite(scores)).nonzero()[0])
            bad = int((~torch.isfinite(scores)).sum())
            raise MetricError(
                f"{self.name} must be finite for every sample, got {float(scores[first])} for sample {first} "
                f"({bad} of {n} are not finite)"
            )
        return scores

    def _given(
        self, outputs: Outputs, targets: Tensor | None, reference: Outputs | None
    ) -> tuple[Any, Tensor | None, Any]:
        """Arguments of `per_sample`."""
        if self.reads_all:
            return _structure(outputs), targets, None if reference is None else _structure(reference)
        mine, original = self.read(outputs), None if reference is None else self.read(reference)
        if self.reads_classes and targets is not None:
            axis = self.class_axis_of(mine, targets)
            mine = classes_last(mine, LAST if axis is None else axis)
            original = None if original is None else classes_last(original, LAST if axis is None else axis)
        return mine, targets, original

    def value(self, scores: Tensor) -> float:
        """Figure of these scores (N,): `finish` of their mean. Raises `MetricError` where it is not finite."""
        mean = float(scores.double().mean())
        value = self.finish(mean)
        if not math.isfinite(value):
            raise MetricError(f"{self.name} is {value} (the mean score is {mean}); it must be a finite number")
        return value

    def is_better(self, a: float, b: float) -> bool:
        return a > b if self.maximise else a < b


_METRICS: dict[str, Metric] = {}
METRICS = MappingProxyType(_METRICS)
"""Registered metrics by name. Read only: see `register_metric`."""


def register_metric(metric: Metric) -> Metric:
    """Register a metric under its name. Raises `MetricError` where the name is taken."""
    if metric.name in _METRICS:
        raise MetricError(
            f"a metric named {metric.name!r} is registered already; known are {', '.join(sorted(_METRICS))}"
        )
    _METRICS[metric.name] = metric
    return metric


def get_metric(name: str) -> Metric:
    """Return the metric of that name. Raises `MetricError` listing the known ones."""
    if name not in _METRICS:
        raise MetricError(
            f"unknown metric {name!r}; known are {', '.join(sorted(_METRICS))}, or give your own function as "
            "'module:function' or 'file.py:function'"
        )
    return _METRICS[name]


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
