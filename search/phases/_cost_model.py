"""The cost model: what each candidate costs, known without running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...evaluators import Measurement
from ..evaluation import LayerVariants, LevelCosts, PrunedModelBuilder, exact_totals
from ..problem import Problem
from ..values import (
    MODELLED,
    Candidate,
    Objective,
    metric_on_device,
    static_measurements,
    structure_of,
)

if TYPE_CHECKING:
    from ...evaluators.prediction import LatencyTable


class PrunedTotals:
    """Exact costs of candidates that remove something, from the model that is left.

    This process compresses what is left of a layer, to know its bytes. The last candidate's costs are kept.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._pruned_models: PrunedModelBuilder | None = None
        self._last: tuple[Candidate, dict[str, float]] | None = None

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        """Return metric -> cost. Raises `SpecError` where too little is left of a layer for its spec."""
        if self._pruned_models is None:
            self._pruned_models = PrunedModelBuilder(LayerVariants(self._problem.context))
        if self._last is None or self._last[0] != candidate:
            self._last = (candidate, exact_totals(self._problem, self._pruned_models, candidate))
        return dict(self._last[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """Costs of a space: bytes, MACs, BOPs, and what is modelled on each device.

    Rows have one entry for each group of the space, and in it one value for each level. Metrics on a device other than
    the first bear its name.

    rows            metric -> rows of costs
    fixed           metric -> cost that every candidate pays
    original        metric -> cost of the original model
    original_bytes  stored bytes of each group when it is left alone
    weight_error    rows of the relative squared error of the weights, of each group's worst layer
    latency         measurements from which `latency_ms` is predicted; None where it is modelled
    """

    problem: Problem
    rows: LevelCosts
    fixed: Mapping[str, float]
    original: Mapping[str, float]
    original_bytes: tuple[float, ...]
    weight_error: tuple[tuple[float, ...], ...]
    latency: LatencyTable | None = None
    pruned: PrunedTotals = field(compare=False)

    @property
    def least(self) -> dict[str, float]:
        """Metric -> cost of the cheapest candidate. Peak memory is left out: its rows are no sum and no bound."""
        return {
            name: self.fixed[name] + sum(min(row) for row in rows)
            for name, rows in self.rows.items()
            if name != "memory_bytes"
        }

    def original_metrics(self) -> dict[str, Measurement]:
        """Costs of the original as the measurements of a trial, with its `fp32_bytes` where its source is not FP32."""
        metrics = static_measurements(self.original, self.problem.task.hardware.grid_g_per_kwh)
        metrics |= {name: m for name, m in self.original_sizes().items() if name not in metrics}
        if self.latency is not None:
            metrics["latency_ms"] = self.latency.predict({})
        return metrics

    def original_sizes(self) -> dict[str, Measurement]:
        """Bytes of the original in the types of its source, and in FP32 (`fp32_bytes`) where these are not FP32."""
        from ...compressors.anatomy import source_bytes

        source, wide = source_bytes(self.problem.context.model)
        n_bytes = self.original["bytes"]
        found = {"bytes": Measurement(value=n_bytes, unit="B")}
        if wide != source:
            found["fp32_bytes"] = Measurement(value=n_bytes + wide - source, unit="B")
        return found

    def metrics_of(self, candidate: Candidate) -> dict[str, Measurement]:
        """Costs of a candidate as the measurements of a trial; no forward pass.

        They are sums over the groups, but for two cases: where something is removed, they are those of the model that
        is left; and a predicted latency is that of the whole model. Raises `SpecError` where too little is left of a
        layer for its spec.
        """
        totals = {
            name: self.fixed[name] + sum(row[i] for row, i in zip(rows, candidate.levels, strict=True))
            for name, rows in self.rows.items()
        }
        problem = self.problem
        assignment = problem.space.assignment(candidate)
        if structure_of(assignment):
            totals = self.pruned(candidate)
        elif problem.devices[0].graph is not None:
            for n, device in enumerate(problem.devices):
                name = device.profile.name if n else None
                exact = device.exact(problem.anatomy, assignment)
                totals |= {metric_on_device(metric, name): value for metric, value in exact.items()}
        metrics = static_measurements(totals, problem.task.hardware.grid_g_per_kwh)
        if self.latency is not None:
            from ...evaluators.prediction import forms_of

            metrics["latency_ms"] = self.latency.predict(forms_of(problem.anatomy, assignment))
        return metrics


def guide_on_every_device(problem: Problem) -> list[Objective]:
    """Return the guide, and its costs on the further devices.

    A candidate that is beaten on one of the devices may still be wanted on another.
    """
    others = [device.profile.name for device in problem.devices[1:]]
    modelled = [o.name for o in problem.guide if o.name in MODELLED]
    return [*problem.guide, *(Objective(name=metric_on_device(name, device)) for device in others for name in modelled)]
