"""Repairs that cost no byte, decided once: on where calibration samples that they did not see say that they help.

Each repair is judged at uniform settings of few bits, because there it matters. A part of the calibration split is put
aside, the repairs are computed on the rest, and the divergences from the original on that part are compared, paired. So
the decision sees no search or report sample.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
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
_FEWEST, _MOST = 8, 64
"""Samples that are put aside: a quarter of the split, within these bounds."""
_SURE = 2.0
"""Standard errors by which a repair must lower the divergence."""
_WORTH = 0.02
"""Share of the divergence by which a repair must lower it."""
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
    inputs = repair_inputs_of(section, problem.splits.calibration, problem.task.data.batch_size)
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
    n = min(_MOST, len(calibration) // 4)
    if n < _FEWEST:
        return usable[0], f"{len(calibration)} calibration samples are too few to judge repairs, {4 * _FEWEST} do"
    fit, aside = _parted(calibration, n)
    settings = _settings(problem.space)
    found = list(_divergences(problem, usable, settings, fit.take(samples), aside))
    if not found:
        return usable[0], "no uniform setting of few bits could be evaluated to judge repairs"
    shares = {each: _mean([one[each] / one[usable[0]].mean() for one in found]) for each in usable}
    chosen = usable[0]
    for each in usable[1:]:
        if _is_better(shares[each], shares[chosen]):
            chosen = each
    means = {each: float(shares[each].mean()) for each in usable}
    best = min(usable[1:], key=means.__getitem__)
    told = f"is {means[chosen]:.0%} of that" if chosen != usable[0] else f"would be {means[best]:.0%} of that"
    doubt = "" if chosen != usable[0] else ", which is not less beyond noise"
    where = " and ".join(label for label, _ in settings)
    return chosen, (
        f"on {n} calibration samples put aside, the divergence of uniform {where} {told} without such repairs{doubt}"
    )


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


def _divergences(
    problem: Problem,
    choices: Sequence[Repairs],
    settings: Sequence[tuple[str, Mapping[str, LayerSpec]]],
    fit: Split,
    aside: Split,
) -> Iterator[dict[Repairs, Tensor]]:
    """Yield for each setting that can be evaluated the divergences (N,) of the samples put aside, by repairs."""
    from ...evaluators import ReferenceOutputs

    context, batch = problem.context, problem.task.data.batch_size
    reference = ReferenceOutputs.compute(context.model, aside, batch)
    models = {bias: CandidateModel(_fitted(context, bias, fit, batch)) for bias in {bias for bias, _ in choices}}
    for _, assignment in settings:
        found: dict[Repairs, Tensor] = {}
        try:
            for bias, norms in choices:
                with models[bias].apply(assignment, batch_norm=norms) as model:
                    found[bias, norms] = _apart(model, aside, reference, context)
        except (SpecError, ConfigError, MetricError):  # the store phase or its trial tells it, with what to do
            continue
        if all(bool(one.isfinite().all()) for one in found.values()) and float(found[choices[0]].mean()) > 0.0:
            yield found


def _fitted(context: EvaluationContext, bias: bool, fit: Split, batch_size: int) -> EvaluationContext:
    section = context.repair.model_copy(update={"bias": bias, "batch_norm": "trials", "samples": len(fit)})
    return replace(context, repair=section, repair_inputs=repair_inputs_of(section, fit, batch_size))


def _apart(model: nn.Module, split: Split, reference: ReferenceOutputs, context: EvaluationContext) -> Tensor:
    """Divergence (N,) of each sample from the original's outputs."""
    import torch

    from ...compressors.anatomy import NamedOutputs
    from ...evaluators import run_batches

    parts, at = [], 0
    for outputs in run_batches(model, split, context.batch_size):
        against = reference.between(at, at + len(outputs))
        at += len(outputs)
        if isinstance(outputs, NamedOutputs) and isinstance(against.outputs, NamedOutputs):
            outputs = outputs.like(against.outputs)
        parts.append(context.distance.per_sample(outputs, against))
    return torch.cat(parts).double()


def _mean(values: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.stack(list(values)).mean(dim=0)


def _is_better(one: Tensor, other: Tensor) -> bool:
    """Tell whether a repair lowers the divergences (N,) of the same samples, surely and by enough to tell."""
    gain = other - one
    error = float(gain.std()) / math.sqrt(len(gain))
    return float(gain.mean()) > max(_WORTH * float(other.mean()), _SURE * error)
