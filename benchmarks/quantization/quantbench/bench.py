"""A subject that was calibrated once, and compressed in any of the settings."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from paredown.compressors import (
    Calibration,
    CompressedModel,
    LayerInfo,
    LayerSpec,
    Repairs,
    Variant,
    applicable,
    calibrate,
    compress,
    installed,
    needs_moments,
    stored_bytes,
    trace_anatomy,
)
from paredown.evaluators import (
    ReferenceOutputs,
    Split,
    evaluate_split,
    get_metric,
    paired_test,
    resolve_divergence,
)

from .subjects import Subject

WIDTHS = (4, 6, 8)

Assignment = Mapping[str, LayerSpec]
Variants = Mapping[str, Variant]


class Bench:
    """A subject, calibrated, and what the original gives on its parts."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        model = subject.model
        batches = subject.calibration.split(64)
        self.anatomy = trace_anatomy(model, subject.report.take(1).inputs)
        self.calibration: Calibration = calibrate(model, batches, self.anatomy, bits=WIDTHS, moments=True)
        self.metric = get_metric(subject.metric)
        self.resident = CompressedModel(model, self.anatomy, self.calibration)
        self.repairs = Repairs(self.resident, self.calibration.moments, batches[:4])
        self.divergence = resolve_divergence("auto", self.metric)
        self.reference = ReferenceOutputs.compute(model, subject.search, subject.batch_size)
        self.original = self.scores(subject.report)

    def scores(self, split: Split) -> Tensor:
        return evaluate_split(self.subject.model, split, self.metric, batch_size=self.subject.batch_size).metric

    def search_divergence(self) -> float:
        found = evaluate_split(
            self.subject.model, self.subject.search, self.metric, reference=self.reference, divergence=self.divergence,
            batch_size=self.subject.batch_size,
        ).divergence  # fmt: skip
        if found is None:
            raise RuntimeError("no divergence was measured")
        return float(found.mean())

    def value(self, scores: Tensor) -> float:
        return self.metric.value(scores)

    def against_original(self, scores: Tensor) -> dict[str, Any]:
        """`gain` is positive where it is better than the original; `low` and `high` bound it (95 %, paired)."""
        paired = paired_test(scores, self.original, self.metric)
        return {"value": self.value(scores), "gain": paired.difference, "low": paired.low, "high": paired.high}

    def compressed(self, spec: LayerSpec) -> tuple[dict[str, LayerSpec], dict[str, Variant], float]:
        """Every layer gets the setting, the first and the last too; where it does not apply, its nearest."""
        start = time.process_time()
        assignment = {layer.fqn: fitted(spec, layer) for layer in self.anatomy.layers}
        return assignment, self.variants(assignment), time.process_time() - start

    def variants(self, assignment: Assignment) -> dict[str, Variant]:
        moments, variants = self.calibration.moments, {}
        for layer in self.anatomy.layers:
            mine = assignment[layer.fqn]
            if mine.changes_weight:
                seen = moments.get(layer.fqn) if moments is not None and needs_moments(mine) else None
                variants[layer.fqn] = compress(self.resident.weight(layer.fqn), mine, layer, moments=seen)
        return variants

    def repaired(self, assignment: Assignment, variants: Variants, *, norms: bool) -> Mapping[str, Tensor] | None:
        """None where the model has nothing (more) to repair."""
        values = self.repairs.corrected_biases(assignment, variants)
        if not norms:
            return values or None
        more = self.repairs.recalibrated_norms(assignment, variants, values)
        return more if set(more) != set(values) or any("running" in name for name in more) else None

    def row(
        self, assignment: Assignment, variants: Variants, values: Mapping[str, Tensor], seconds: float
    ) -> dict[str, Any]:
        scores, apart = self.run(assignment, variants, values)
        n_bytes = self.bytes_of(assignment, variants)
        found = {**self.against_original(scores), "search_divergence": apart, "bytes": n_bytes}
        return found | {"compress_cpu_s": round(seconds, 3)}

    def run(self, assignment: Assignment, variants: Variants, values: Mapping[str, Tensor]) -> tuple[Tensor, float]:
        """(scores on the report part, divergence on the search part)."""
        with torch.no_grad(), self.resident.apply(assignment, variants), installed(self.subject.model, values):
            return self.scores(self.subject.report), self.search_divergence()

    def row_of_weights(self, values: Mapping[str, Tensor], n_bytes: int) -> dict[str, Any]:
        with torch.no_grad(), installed(self.subject.model, values):
            scores, apart = self.scores(self.subject.report), self.search_divergence()
        return {**self.against_original(scores), "search_divergence": apart, "bytes": n_bytes}

    def bytes_of(self, assignment: Assignment, variants: Variants) -> int:
        return stored_bytes(self.subject.model, self.anatomy, assignment, variants)


def fitted(spec: LayerSpec, layer: LayerInfo) -> LayerSpec:
    """Without groups where rows are no longer; without a quantized activation where the input is whole numbers."""
    if layer.kind == "embedding":
        spec = spec.weight_only
    if applicable(spec, layer) is not None:
        spec = dataclasses.replace(spec, group_size=0)
    reason = applicable(spec, layer)
    if reason is not None:
        raise ValueError(f"{spec.label()} does not fit {layer.fqn}: {reason}")
    return spec
