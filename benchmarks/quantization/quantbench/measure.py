"""One subject under every setting: calibrated once, each layer compressed, both parts run, held against FP32.

What is best of several is chosen by the divergence from the original's outputs on the search part; the report part is
only reported.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping
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
)  # fmt: skip
from paredown.evaluators import (
    ReferenceOutputs,
    Split,
    evaluate_split,
    get_metric,
    paired_test,
    resolve_divergence,
)

from .reference_gptq import reference_gptq
from .rivals import RIVALS
from .settings import REPAIRED, REPAIRS, settings
from .subjects import Subject

WIDTHS = (4, 6, 8)
REFERENCE = "W3 reference GPTQ g64"

Assignment = Mapping[str, LayerSpec]
Variants = Mapping[str, Variant]


def measure(subject: Subject, say: Any = print, samples: int | None = None) -> dict[str, Any]:
    """JSON-ready: the original, and for each setting quality, difference from FP32 with its interval, and bytes.

    samples  of each part, at most
    """
    search, report = (
        part if samples is None else part.take(min(samples, len(part))) for part in (subject.search, subject.report)
    )
    subject = dataclasses.replace(subject, search=search, report=report)
    start = time.process_time()
    bench = Bench(subject)
    calibration_s = time.process_time() - start
    rows: dict[str, Any] = {}

    def note(name: str, row: dict[str, Any]) -> None:
        rows[name] = row
        say(f"{subject.name:12} {name:28} {row['value']:9.4f} {row['search_divergence']:9.5f} {row['bytes']:9d} B")

    wide = any(layer.matrix_shape[1] > 64 for layer in bench.anatomy.layers)
    for name, spec in {**settings(), **(settings(64) if wide else {})}.items():
        assignment, variants, seconds = bench.compressed(spec)
        note(name, bench.row(assignment, variants, {}, seconds))
        for suffix, (_, norms) in REPAIRS.items() if name in REPAIRED else ():
            values = bench.repaired(assignment, variants, norms=norms)
            if values is not None:
                note(name + suffix, bench.row(assignment, variants, values, seconds))
    if wide:
        values, n_bytes = reference_gptq(bench, bits=3, group=64)
        note(REFERENCE, bench.row_of_weights(values, n_bytes))
    return {
        "metric": subject.metric,
        "n_calibration": len(subject.calibration),
        "n_search": len(search),
        "n_report": len(report),
        "original": {"value": bench.value(bench.original), "bytes": bench.bytes_of({}, {})},
        "calibration_cpu_s": round(calibration_s, 2),
        "settings": rows,
        "rivals": rivals(bench, say),
    }


def rivals(bench: Bench, say: Any = print) -> dict[str, Any]:
    """For each of the other quantizers quality and difference from FP32 on the report part, or why there is none."""
    found: dict[str, Any] = {}
    for name, rival in RIVALS.items():
        scores = rival(bench.subject)
        found[name] = {"skipped": scores} if isinstance(scores, str) else bench.against_original(scores)
        say(f"{bench.subject.name:12} {name:28} {found[name]}")
    return found


def best(rows: Mapping[str, Any], begin: str, end: str = "", *, plain: bool = True) -> str:
    """Of the settings named so, the one of least divergence on the search part; `plain`: without repairs."""
    names: Iterable[str] = (n for n in rows if n.startswith(begin) and n.endswith(end) and n != REFERENCE)
    return min((n for n in names if not plain or " + " not in n), key=lambda n: rows[n]["search_divergence"])


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
        return float(self.metric.finish(float(scores.double().mean())))

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
        values = self.repairs.biases(assignment, variants)
        if not norms:
            return values or None
        more = self.repairs.norms(assignment, variants, values)
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
