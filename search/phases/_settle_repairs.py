"""Repairs that cost no byte, decided once: on where calibration samples that they did not see say that they help.

Each repair is judged at uniform settings of few bits, because there it matters. A part of the calibration split is put
aside, the repairs are computed on the rest, and the distances from the original's outputs on that part are compared,
paired. So the decision sees no search or report sample.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, SpecError
from ...evaluators import MetricError
from ..evaluation import CandidateModel
from ..problem import repair_inputs_of
from ..space import removes_something, uniform_settings
from ..values import SearchSpace

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...compressors import LayerSpec
    from ...evaluators import ReferenceOutputs, Split
    from ..problem import EvaluationContext, Problem

WIDTHS = (3, 4, 2, 5, 6, 8)
"""Widths of the uniform settings that are looked at, the most telling first."""
N_SETTINGS = 2
_FEWEST, _MOST = 8, 128
"""Samples that are put aside: a half of the split, within these bounds."""
_FLOOR = 0.1
"""Share of the mean error that is added to each sample's before its logarithm is taken."""
_SURE = 2.0
"""Standard errors by which a repair must lower the squared error."""
_WORTH = 0.02
"""Share of the squared error by which a repair must lower it."""
_SHARE, _LEAST = 16, 64
"""A pass for the batch norms takes this part of the search split at most, but so many samples."""

Repairs = tuple[bool, bool]
"""Whether biases are corrected, and whether batch norms are recalibrated."""


def settle_repairs(problem: Problem, known: Mapping[str, Any] | None = None) -> Problem:
    """Return the problem with the repairs that its task leaves open decided, and a note that says how.

    known  `RunFacts.repair` of a run that goes on; None: decide now
    """
    asked, context = problem.task.repair, problem.context
    open_norms = asked.batch_norm == "auto" and not removes_something(problem.task.space)
    if not open_norms and asked.bias != "auto":
        return problem
    if known is not None:
        return _with_repairs(problem, known["bias"], known["batch_norm"], known["samples"])
    samples = context.repair.samples
    if open_norms and not asked.block_reconstruction:
        samples = min(samples, max(_LEAST, len(context.split) // _SHARE))
    fixed = (context.repair.bias, context.repair.batch_norm == "trials")
    choices = [
        (bias, norms)
        for bias, norms in ((False, False), (True, False), (False, True), (True, True))
        if (asked.bias == "auto" or bias == fixed[0]) and (open_norms or norms == fixed[1])
    ]
    chosen, why = _decided(problem, choices, samples)
    norms = ("trials" if chosen[1] else "off") if open_norms else context.repair.batch_norm or "off"
    settled = _with_repairs(problem, chosen[0], norms, samples)
    return replace(settled, notes=(*settled.notes, f"[repair] {_named(chosen)}: {why}"))


def _with_repairs(problem: Problem, bias: bool, batch_norm: str, samples: int) -> Problem:
    section = problem.task.repair.model_copy(update={"bias": bias, "batch_norm": batch_norm, "samples": samples})
    inputs = repair_inputs_of(section, problem.splits.calibration, problem.context.batch_size)
    context = replace(problem.context, repair=section, repair_inputs=inputs)
    return replace(problem, task=problem.task.model_copy(update={"repair": section}), context=context)


def _named(repairs: Repairs) -> str:
    bias, norms = repairs
    on = [name for name, is_on in (("biases are corrected", bias), ("batch norms are recalibrated", norms)) if is_on]
    return " and ".join(on) or "biases and batch norms stay as they are"


def _decided(problem: Problem, choices: Sequence[Repairs], samples: int) -> tuple[Repairs, str]:
    """Choose among repairs, from the fewest up, and say why in a clause."""
    usable = _usable(problem, choices)
    if len(usable) == 1:
        return usable[0], "the model has no place for others that cost no byte"
    calibration = problem.splits.calibration
    n = min(_MOST, len(calibration) // 2)
    if n < _FEWEST:
        return usable[0], f"{len(calibration)} calibration samples are too few to judge repairs, {2 * _FEWEST} do"
    fit, aside = _parted(calibration, n)
    settings = _settings(problem.space)
    found = list(_judged(problem, usable, settings, fit.take(samples), aside))
    if not found:
        return usable[0], "no uniform setting of few bits could be evaluated to judge repairs"
    shares = {each: _averaged([one[each].relative_to(one[usable[0]]) for one in found]) for each in usable}
    chosen = usable[0]
    for each in usable[1:]:
        no_higher = float(shares[each].divergence.mean()) <= 1.0
        if no_higher and shares[each].is_better_than(shares[chosen]):
            chosen = each
    where, alone = " and ".join(label for label, _ in settings), chosen == usable[0]
    told = shares[min(usable[1:], key=lambda each: float(shares[each].squared.mean())) if alone else chosen]
    return chosen, (
        f"on {n} calibration samples put aside, uniform {where} {'would have' if alone else 'has'} "
        f"{float(told.squared.mean()):.0%} of the outputs' squared error and {float(told.divergence.mean()):.0%} of "
        f"the divergence that it has without{', so they would not surely help' if alone else ''}"
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Apart:
    """Distances (N,) of a model's outputs from the original's.

    squared     squared error: it decides, as most of the divergence of a nearly sure classifier comes from few samples
    divergence  the task's divergence: it must not rise
    """

    squared: Tensor
    divergence: Tensor

    def relative_to(self, base: _Apart) -> _Apart:
        """Divide by the means of `base`."""
        return _Apart(squared=self.squared / base.squared.mean(), divergence=self.divergence / base.divergence.mean())

    def is_better_than(self, other: _Apart) -> bool:
        """Tell whether the squared error of the same samples is lower, surely and by enough.

        Errors have long tails, so their logarithms are tested; a tenth of the mean is added, as the smallest say
        nothing.
        """
        base = float(other.squared.mean()) * _FLOOR
        gain = ((other.squared + base) / (self.squared + base)).log()
        surely = _SURE * float(gain.std()) / math.sqrt(len(gain))
        return float(gain.mean()) > max(_WORTH, surely)


def _averaged(values: Sequence[_Apart]) -> _Apart:
    import torch

    squared, divergence = ([getattr(each, name) for each in values] for name in ("squared", "divergence"))
    return _Apart(squared=torch.stack(squared).mean(dim=0), divergence=torch.stack(divergence).mean(dim=0))


def _usable(problem: Problem, choices: Sequence[Repairs]) -> list[Repairs]:
    """Leave out repairs for which the model has no place."""
    from ...compressors import CompressedModel
    from ...compressors import Repairs as Computed

    context = problem.context
    model, anatomy = context.model, context.anatomy
    computed = Computed(CompressedModel(model, anatomy), None, (problem.calibration_inputs,))
    layers = [layer for layer in anatomy.layers if layer.kind != "embedding"]
    has_place, has_norms = len(computed.without_place) < len(layers), computed.has_norms
    usable = [(bias, norms) for bias, norms in choices if (not bias or has_place) and (not norms or has_norms)]
    return usable or list(choices[:1])


def _parted(calibration: Split, n: int) -> tuple[Split, Split]:
    """Split into the samples to fit on and `n` to judge with, evenly spread, because data sets come sorted."""
    import torch

    aside = torch.linspace(0, len(calibration) - 1, n).long()
    is_left = torch.ones(len(calibration), dtype=torch.bool)
    is_left[aside] = False
    left = is_left.nonzero()[:, 0]
    return calibration.select(left[torch.randperm(len(left), generator=torch.Generator().manual_seed(0))]), (
        calibration.select(aside)
    )


def _settings(space: SearchSpace) -> list[tuple[str, Mapping[str, LayerSpec]]]:
    """Uniform settings to judge repairs at: of the most telling widths; where none has few bits, the cheapest ones."""
    by_width: dict[int, tuple[str, Mapping[str, LayerSpec]]] = {}
    rest: list[tuple[str, Mapping[str, LayerSpec]]] = []
    activations: dict[int, int] = {}
    for label, candidate in uniform_settings(space):
        assignment = space.assignment(candidate)
        spec = Counter(assignment.values()).most_common(1)[0][0]
        if any(each.changes_structure for each in assignment.values()):
            continue
        rest.append((label, assignment))
        if spec.sparsity > 0.0 or spec.rank < 1.0:
            continue
        if spec.weight_bits not in by_width or 8 <= spec.activation_bits < activations[spec.weight_bits]:
            by_width[spec.weight_bits] = (label, assignment)
            activations[spec.weight_bits] = spec.activation_bits
    found = [by_width[width] for width in WIDTHS if width in by_width]
    return (found or rest[::-1])[:N_SETTINGS]


def _judged(
    problem: Problem,
    choices: Sequence[Repairs],
    settings: Sequence[tuple[str, Mapping[str, LayerSpec]]],
    fit: Split,
    aside: Split,
) -> Iterator[dict[Repairs, _Apart]]:
    """Yield for each setting that can be evaluated the distances of the samples put aside, by repairs."""
    from ...evaluators import ReferenceOutputs

    context, batch = problem.context, problem.context.batch_size
    reference = ReferenceOutputs.compute(context.model, aside, batch)
    models = {bias: CandidateModel(_fitted(context, bias, fit, batch)) for bias in {bias for bias, _ in choices}}
    for _, assignment in settings:
        found: dict[Repairs, _Apart] = {}
        try:
            for bias, norms in choices:
                with models[bias].apply(assignment, batch_norm=norms) as model:
                    found[bias, norms] = _apart(model, aside, reference, context)
        except (SpecError, ConfigError, MetricError):  # the store phase or its trial tells it, with what to do
            continue
        if float(found[choices[0]].divergence.mean()) > 0.0 and float(found[choices[0]].squared.mean()) > 0.0:
            yield found


def _fitted(context: EvaluationContext, bias: bool, fit: Split, batch_size: int) -> EvaluationContext:
    section = context.repair.model_copy(update={"bias": bias, "batch_norm": "trials", "samples": len(fit)})
    return replace(context, repair=section, repair_inputs=repair_inputs_of(section, fit, batch_size))


def _apart(model: nn.Module, split: Split, reference: ReferenceOutputs, context: EvaluationContext) -> _Apart:
    """Distances of the outputs on the split from the original's. Raises `MetricError` where they are not finite."""
    import torch

    from ...compressors.anatomy import NamedOutputs
    from ...evaluators import run_batches

    distance = context.distance
    squared = replace(distance, outputs=tuple(replace(each, kind="mse") for each in distance.outputs))
    parts: list[tuple[Tensor, Tensor]] = []
    at = 0
    for outputs in run_batches(model, split, context.batch_size):
        against = reference.between(at, at + len(outputs))
        at += len(outputs)
        if isinstance(outputs, NamedOutputs) and isinstance(against.outputs, NamedOutputs):
            outputs = outputs.like(against.outputs)
        divergence = distance.per_sample(outputs, against)
        try:
            parts.append((squared.per_sample(outputs, against), divergence))
        except MetricError:  # an answer that is never given has an infinite logit, which only the divergence compares
            parts.append((divergence, divergence))
    of_squared, of_divergence = (torch.cat(each).double() for each in zip(*parts, strict=True))
    return _Apart(squared=of_squared, divergence=of_divergence)
