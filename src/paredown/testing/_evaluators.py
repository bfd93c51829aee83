"""Contract suites for metrics and evaluators: promises that hold whatever they compute.

    check_metric(my_metric, outputs, targets, worse=bad_outputs)
    check_evaluator(lambda model, split: run_split(model, split))

Each raises `AssertionError` with what was broken.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ..evaluators import Measurement, Metric, MetricError, Split

Evaluate = Callable[[nn.Module, Split], Tensor | Measurement | float]
"""Function of a model and a split; it may run the model in any way, and leaves everything as it was."""


def check_metric(
    metric: Metric,
    outputs: Tensor,
    targets: Tensor | None,
    *,
    reference: Tensor | None = None,
    worse: Tensor | None = None,
) -> None:
    """Check a metric: one finite score or row for each sample, from that sample alone, and its arguments left alone.

    outputs    (N, …) with N >= 2, for samples that differ in score
    targets    as the metric takes them; `reference` likewise
    worse      outputs (N, …) that must rank below `outputs`: it shows that `maximise` points the right way
    """
    n = outputs.shape[0]
    _require(n >= 2, f"hand in at least two samples, got {n}")
    parts = {"outputs": outputs, "targets": targets, "reference": reference}
    given = {label: part.clone() for label, part in parts.items() if part is not None}
    scores = metric.scores(outputs, targets, reference)  # raises MetricError for a shape other than (N,), NaN, infinity
    for label, before in given.items():
        part = parts[label]
        _require(part is not None and torch.equal(part, before), f"{metric.name} changed its {label}")
    again = metric.scores(outputs, targets, reference)
    _require(torch.equal(scores, again), f"{metric.name} gives another score the second time")
    for order in (torch.arange(n - 1, -1, -1), torch.arange(1)):
        chosen = {label: part[order] for label, part in given.items()}
        alone = metric.scores(chosen["outputs"], chosen.get("targets"), chosen.get("reference"))
        _require(
            torch.allclose(alone, scores[order], rtol=1e-6, atol=1e-9),
            f"{metric.name}: a sample's score must not depend on the other samples or their order; "
            f"expected {scores[order].tolist()[:4]}, got {alone.tolist()[:4]}",
        )
    value = metric.value(scores)
    if metric.is_mean:
        means = scores if scores.dim() == 1 else scores[:, 0] / scores[:, 1]
        ends = sorted((metric.finish(float(means.min())), metric.finish(float(means.max()))))
        slack = 1e-9 * max(1.0, *(abs(end) for end in ends))
        _require(ends[0] - slack <= value <= ends[1] + slack, f"{metric.name}: `finish` must be monotone")
    least, most = metric.range
    _require(least <= value <= most, f"{metric.name} is {value}, outside its range {least} to {most}")
    if worse is not None:
        bad = metric.value(metric.scores(worse, targets, reference))
        _require(
            metric.is_better(value, bad),
            f"{metric.name}: {value} must be better than {bad}, which is of the worse outputs; check `maximise`",
        )
    _refuses_nan(metric, outputs, targets, reference)


def check_evaluator(evaluate: Evaluate) -> None:
    """Check an evaluator: repeated calls agree, and leave the model, the data and the process as they were.

    That is: each module's train mode, hooks, parameters and buffers, the split's tensors, the grad mode, and the random
    states of torch, numpy and Python. All of it when the model raises, too.
    """
    split = Split("search", torch.randn(12, 6, generator=torch.Generator().manual_seed(3)), torch.arange(12) % 4)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            model = _Awkward()
            results = []
            for _ in range(2):
                with _Unchanged(model, split, grad):
                    results.append(evaluate(model, split))
            _require(_same(*results), f"the same model on the same split gave {results[0]} and then {results[1]}")
            broken = _Awkward(fails=True)
            with _Unchanged(broken, split, grad, when="after the model raised"):
                try:
                    evaluate(broken, split)
                except _ModelError:
                    continue
            raise AssertionError("the model raised, and the evaluator returned a result")


class _ModelError(RuntimeError):
    """Error that the failing model raises."""


class _Awkward(nn.Module):
    """Model in train mode but for one part, with dropout, batch norm and buffers, so that every side effect shows."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first = nn.Linear(6, 8)
            self.norm = nn.BatchNorm1d(8)
            self.frozen = nn.BatchNorm1d(8)
            self.drop = nn.Dropout(0.5)
            self.last = nn.Linear(8, 4)
        self.fails = fails
        self.train()
        self.frozen.eval()

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.drop(self.frozen(self.norm(self.first(x))))
        if self.fails:
            torch.rand(1)
            raise _ModelError
        logits: Tensor = self.last(hidden)
        return logits


class _Unchanged:
    """Comparison of everything before and after."""

    def __init__(self, model: nn.Module, split: Split, grad: bool, when: str = "") -> None:
        self.model, self.split, self.grad, self.when = model, split, grad, f" {when}".rstrip()

    def __enter__(self) -> None:
        self.modes = {name: module.training for name, module in self.model.named_modules()}
        self.hooks = self._hooks()
        self.tensors = dict(self.model.state_dict(keep_vars=True))
        self.values = copy.deepcopy(self.model.state_dict())
        self.digest = self.split.digest
        self.torch_state = torch.get_rng_state()
        self.numpy_state = np.random.get_state()  # noqa: NPY002 (looked at, not drawn from)
        self.python_state = random.getstate()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is not None and not issubclass(kind, _ModelError):
            return
        grad = torch.is_grad_enabled()
        torch.set_grad_enabled(self.grad)
        _require(grad == self.grad, f"the grad mode was {self.grad} and is {grad}{self.when}")
        for name, module in self.model.named_modules():
            was = self.modes.get(name)
            _require(
                was == module.training, f"train mode of {name or 'model'} was {was}, is {module.training}{self.when}"
            )
        _require(self._hooks() == self.hooks, f"a hook was left on the model{self.when}")
        after = self.model.state_dict(keep_vars=True)
        _require(after.keys() == self.tensors.keys(), f"the model's tensors have other names{self.when}")
        for name, tensor in after.items():
            _require(tensor is self.tensors[name], f"{name} is another tensor object{self.when}")
            _require(torch.equal(tensor, self.values[name]), f"{name} has another value{self.when}")
        _require(self.split.digest == self.digest, f"the split's tensors were changed{self.when}")
        _require(torch.equal(torch.get_rng_state(), self.torch_state), f"torch's random state was changed{self.when}")
        _require(random.getstate() == self.python_state, f"Python's random state was changed{self.when}")
        numpy_state = np.random.get_state()  # noqa: NPY002
        same = all(np.array_equal(now, was) for now, was in zip(numpy_state, self.numpy_state, strict=True))
        _require(same, f"numpy's random state was changed{self.when}")

    def _hooks(self) -> int:
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in self.model.modules())


def _refuses_nan(metric: Metric, outputs: Tensor, targets: Tensor | None, reference: Tensor | None) -> None:
    if not outputs.is_floating_point():
        return
    spoiled = outputs.clone()
    spoiled.view(-1)[0] = torch.nan
    try:
        metric.scores(spoiled, targets, reference)
    except MetricError:
        return
    raise AssertionError(f"{metric.name} gave a score for outputs that hold NaN")


def _same(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    return bool(a == b)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)
