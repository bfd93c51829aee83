"""One subject under every setting: calibrated once, each layer compressed, the report split run, held against FP32."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch
from torch import Tensor

from paredown.compressors import (
    Anatomy,
    Calibration,
    CompressedModel,
    LayerInfo,
    LayerSpec,
    applicable,
    calibrate,
    compress,
    needs_moments,
    stored_bytes,
)  # fmt: skip
from paredown.evaluators import evaluate_split, get_metric, paired_test

from .rivals import RIVALS
from .settings import settings
from .subjects import Subject

WIDTHS = (4, 6, 8)


def measure(subject: Subject, say: Any = print, samples: int | None = None) -> dict[str, Any]:
    """JSON-ready: the original, and for each setting quality, difference from FP32 with its interval, and bytes."""
    report = subject.report if samples is None else subject.report.take(samples)
    subject = dataclasses.replace(subject, report=report)
    start = time.process_time()
    anatomy = Anatomy.trace(subject.model, report.take(1).inputs)
    batches = subject.calibration.split(64)
    calibration = calibrate(subject.model, batches, anatomy, bits=WIDTHS, moments=True)
    calibration_s = time.process_time() - start
    bench = _Bench(subject, anatomy, calibration)
    rows = {}
    wide = any(layer.matrix_shape[1] > 64 for layer in anatomy.layers)
    for name, spec in {**settings(), **(settings(64) if wide else {})}.items():
        rows[name] = bench.row(spec)
        say(f"{subject.name:12} {name:28} {rows[name]['value']:9.4f} {rows[name]['bytes']:9d} B")
    rivals = {}
    for name, rival in RIVALS.items():
        scores = rival(subject)
        rivals[name] = {"skipped": scores} if isinstance(scores, str) else bench.against_original(scores)
        say(f"{subject.name:12} {name:28} {rivals[name]}")
    return {
        "metric": subject.metric,
        "n_calibration": len(subject.calibration),
        "n_report": len(report),
        "original": {"value": bench.value(bench.original), "bytes": bench.bytes_of({}, {})},
        "calibration_cpu_s": round(calibration_s, 2),
        "settings": rows,
        "rivals": rivals,
    }


class _Bench:
    def __init__(self, subject: Subject, anatomy: Anatomy, calibration: Calibration) -> None:
        self.subject, self.anatomy, self.calibration = subject, anatomy, calibration
        self.metric = get_metric(subject.metric)
        self.resident = CompressedModel(subject.model, anatomy, calibration)
        self.original = self.scores()

    def scores(self) -> Tensor:
        subject = self.subject
        return evaluate_split(subject.model, subject.report, self.metric, batch_size=subject.batch_size).metric

    def value(self, scores: Tensor) -> float:
        return float(self.metric.finish(float(scores.double().mean())))

    def against_original(self, scores: Tensor) -> dict[str, Any]:
        """`gain` is positive where it is better than the original; `low` and `high` bound it (95 %, paired)."""
        paired = paired_test(scores, self.original, self.metric)
        return {"value": self.value(scores), "gain": paired.difference, "low": paired.low, "high": paired.high}

    def row(self, spec: LayerSpec) -> dict[str, Any]:
        """Every layer gets the setting, the first and the last too; where it does not apply, its nearest."""
        start = time.process_time()
        assignment = {layer.fqn: fitted(spec, layer) for layer in self.anatomy.layers}
        moments = self.calibration.moments
        variants = {}
        for layer in self.anatomy.layers:
            mine = assignment[layer.fqn]
            if mine.changes_weight:
                seen = moments.get(layer.fqn) if moments is not None and needs_moments(mine) else None
                variants[layer.fqn] = compress(self.resident.weight(layer.fqn), mine, layer, moments=seen)
        seconds = time.process_time() - start
        with torch.no_grad(), self.resident.apply(assignment, variants):
            scores = self.scores()
        n_bytes = self.bytes_of(assignment, variants)
        return {**self.against_original(scores), "bytes": n_bytes, "compress_cpu_s": round(seconds, 3)}

    def bytes_of(self, assignment: Any, variants: Any) -> int:
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
