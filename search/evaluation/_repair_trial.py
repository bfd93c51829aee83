"""Trial of repairs: uniform settings with each choice of repairs, on samples that the repairs did not see."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from ..problem import repair_inputs_of
from ..values import reason
from ._candidate_model import CandidateModel

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...compressors import LayerSpec
    from ...evaluators import Reference, Split
    from ..problem import EvaluationContext

_FLOOR = 0.1
"""Share of the mean error that is added to each sample's before its logarithm is taken."""
_SURE = 2.0
"""Standard errors by which a repair must lower the squared error."""
_WORTH = 0.02
"""Share of the squared error by which a repair must lower it."""

Repairs: TypeAlias = tuple[bool, bool]
"""Whether biases are corrected, and whether batch norms are recalibrated."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Apart:
    """Distances (N,) of a model's outputs from the original's.

    squared     squared error: it decides, as most of the divergence of a nearly sure classifier comes from few samples
    divergence  the task's divergence: it must not rise
    """

    squared: Tensor
    divergence: Tensor

    def relative_to(self, base: Apart) -> Apart:
        """Divide by the means of `base`."""
        return Apart(squared=self.squared / base.squared.mean(), divergence=self.divergence / base.divergence.mean())

    def is_better_than(self, other: Apart) -> bool:
        """Tell whether the squared error of the same samples is lower, surely and by enough.

        Errors have long tails, so their logarithms are tested; a tenth of the mean is added, as the smallest say
        nothing.
        """
        base = float(other.squared.mean()) * _FLOOR
        gain = ((other.squared + base) / (self.squared + base)).log()
        surely = _SURE * float(gain.std()) / math.sqrt(len(gain))
        return float(gain.mean()) > max(_WORTH, surely)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairTrial:
    """Distances from the original's outputs of every setting that could be evaluated, for each choice of repairs.

    failed  reason of the last setting that failed; "" if none did
    """

    found: tuple[Mapping[Repairs, Apart], ...]
    failed: str = ""


def try_repairs(
    context: EvaluationContext,
    choices: Sequence[Repairs],
    settings: Sequence[Mapping[str, LayerSpec]],
    fit: Split,
    aside: Split,
) -> RepairTrial:
    """Evaluate the settings with each choice of repairs; one that fails is left out.

    fit    samples on which repairs are computed
    aside  samples on which they are judged

    A time limit that runs out ends all of it.
    """
    from ...evaluators import reference_outputs

    reference = reference_outputs(context.model, aside, context.batch_size)
    models = {bias: CandidateModel(_fitted(context, bias, fit)) for bias in {bias for bias, _ in choices}}
    kept, failed = [], ""
    for assignment in settings:
        found: dict[Repairs, Apart] = {}
        try:
            for bias, norms in choices:
                with models[bias].apply(assignment, batch_norm=norms) as model:
                    found[bias, norms] = _apart(model, aside, reference, context)
        except TimeoutError:
            raise
        except (Exception, SystemExit) as exception:  # a candidate may fail in any way; its trial tells it again
            failed = reason(exception)
            continue
        if float(found[choices[0]].divergence.mean()) > 0.0 and float(found[choices[0]].squared.mean()) > 0.0:
            kept.append(found)
    return RepairTrial(found=tuple(kept), failed=failed)


def _fitted(context: EvaluationContext, bias: bool, fit: Split) -> EvaluationContext:
    section = context.repair.model_copy(update={"bias": bias, "batch_norm": "trials", "samples": len(fit)})
    return replace(context, repair=section, repair_inputs=repair_inputs_of(section, fit, context.batch_size))


def _apart(model: nn.Module, split: Split, reference: Reference, context: EvaluationContext) -> Apart:
    """Distances of the outputs on the split from the original's. Raises `MetricError` where they are not finite."""
    import torch

    from ...compressors.anatomy import NamedOutputs
    from ...evaluators import MetricError, run_batches

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
    return Apart(squared=of_squared, divergence=of_divergence)
