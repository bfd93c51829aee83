"""One model, calibrated once: any assignment of specs in, its figures on the report split out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paredown.compressors import (
    Calibration,
    CompressedModel,
    LayerSpec,
    Variant,
    applicable,
    calibrate,
    compress,
    stored_bytes,
    trace_anatomy,
)  # fmt: skip
from paredown.evaluators import Split, evaluate_split, get_metric, loss_gradients, paired_test

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "quantization"))
from quantbench.subjects import SUBJECTS, Subject

__all__ = ["Bench", "opened"]


def opened(name: str, samples: int | None = None) -> Bench:
    return Bench(SUBJECTS[name](), samples)


class Bench:
    """`samples` of the report split; all by default."""

    def __init__(self, subject: Subject, samples: int | None = None) -> None:
        self.subject = subject
        self.report = subject.report if samples is None else subject.report.take(samples)
        self.metric = get_metric(subject.metric)
        self.anatomy = trace_anatomy(subject.model, self.report.take(1).inputs)
        self.calibration = self._calibrated()
        self.resident = CompressedModel(subject.model, self.anatomy, self.calibration)
        self.original = self.scores()

    def _calibrated(self) -> Calibration:
        model, inputs = self.subject.model, self.subject.calibration
        found = calibrate(model, inputs.split(64), self.anatomy, moments=True)
        with torch.no_grad():
            labels = None
            if self.subject.metric == "accuracy":  # no labels come with the calibration split: the model's own answers
                labels = torch.cat([model(part).argmax(dim=-1) for part in inputs.split(64)])
        gradients = loss_gradients(model, Split("calibration", inputs, labels), self.anatomy, self.metric)
        return Calibration(ranges=found.ranges, others=found.others, moments=found.moments, gradients=gradients)

    @property
    def fqns(self) -> tuple[str, ...]:
        """Layers that are treated: all, once for each weight, but for embeddings and the heads that are tied to
        them.
        """
        tied = {
            name for layer in self.anatomy.layers if layer.kind == "embedding" for name in (layer.fqn, *layer.tied_to)
        }
        return tuple(fqn for fqn in self.anatomy.fqns if fqn not in tied)

    def variant(self, fqn: str, spec: LayerSpec) -> Variant:
        moments, gradients = self.calibration.moments, self.calibration.gradients
        if moments is None or gradients is None:
            raise RuntimeError("the calibration was to collect moments and gradients")
        return compress(
            self.resident.weight(fqn), spec, self.anatomy[fqn], moments=moments.get(fqn), gradients=gradients.get(fqn)
        )

    def scores(self) -> Tensor:
        subject = self.subject
        with torch.no_grad():
            return evaluate_split(subject.model, self.report, self.metric, batch_size=subject.batch_size).metric

    def value(self, scores: Tensor) -> float:
        return self.metric.value(scores)

    def row(self, spec: LayerSpec) -> dict[str, Any]:
        """The same for every layer; where it does not apply, the layer is left alone, and counted."""
        assignment = {fqn: spec for fqn in self.fqns if applicable(spec, self.anatomy[fqn]) is None}
        return {**self.of(assignment)[0], "left": len(self.fqns) - len(assignment)}

    def of(self, assignment: Mapping[str, LayerSpec]) -> tuple[dict[str, Any], Tensor]:
        """(figures, scores). `gain` is positive where it is better than the original; `low`, `high` bound it (95 %)."""
        variants = {fqn: self.variant(fqn, spec) for fqn, spec in assignment.items() if spec.changes_weight}
        with torch.no_grad(), self.resident.apply(assignment, variants):
            scores = self.scores()
        n_zeros = sum(int((v.effective == 0).sum()) for v in variants.values())
        n = sum(self.anatomy[fqn].n_weights for fqn in self.fqns)
        n_bytes = stored_bytes(self.subject.model, self.anatomy, assignment, variants)
        return {**self.against(scores, self.original), "zeros": round(n_zeros / n, 4), "bytes": n_bytes}, scores

    def weights(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """The same with these weights in place, which another implementation has made."""
        modules = {fqn: self.subject.model.get_submodule(fqn) for fqn in weights}
        before = {fqn: module.weight.data for fqn, module in modules.items()}
        try:
            for fqn, module in modules.items():
                module.weight.data = weights[fqn].reshape(before[fqn].shape)
            return self.against(self.scores(), self.original)
        finally:
            for fqn, module in modules.items():
                module.weight.data = before[fqn]

    def against(self, scores: Tensor, other: Tensor) -> dict[str, Any]:
        paired = paired_test(scores, other, self.metric)
        return {"value": self.value(scores), "gain": paired.difference, "low": paired.low, "high": paired.high}
