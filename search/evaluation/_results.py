"""Results of jobs: plain values that travel from a worker to the driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..._arrays import SingleArray
    from ...evaluators import Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltVariant:
    """A variant that lies in the store.

    n_bytes       its share of the stored model file
    weight_error  squared error of the weight over the weight's square
    """

    n_bytes: int
    weight_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityEstimate:
    """An estimate of the sensitivity table from gradients.

    values    (group, level) -> divergence; None where it cannot be estimated
    elements  the same, every element of a layer's output by itself (`FisherTable.elements`)
    passes    its cost, in samples passed forward through the whole model
    """

    values: tuple[tuple[float | None, ...], ...]
    elements: tuple[tuple[float | None, ...], ...]
    passes: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationResult:
    """Metrics of a candidate.

    metrics       on the whole search split; estimates if it was stopped early; on the first samples at low fidelity
    samples       samples that it was evaluated on
    losses        (n_samples,) one for each sample of the whole split, if they were asked for; None otherwise
    beaten_by     number of the incumbent that it is no better than, if it was stopped early; None otherwise
    low_fidelity  metrics on the first samples alone, if they were asked for beside those of the whole split
    """

    metrics: Mapping[str, Measurement]
    samples: int
    losses: SingleArray | None = None
    beaten_by: int | None = None
    low_fidelity: Mapping[str, Measurement] = field(default_factory=dict)
