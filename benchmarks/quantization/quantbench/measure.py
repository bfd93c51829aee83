"""One subject under every setting: calibrated once, each layer compressed, both parts run, held against FP32.

What is best of several is chosen by the divergence from the original's outputs on the search part; the report part is
only reported.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping
from typing import Any

from .bench import Bench
from .reference_gptq import reference_gptq
from .rivals import RIVALS
from .settings import REPAIRED, REPAIRS, settings
from .subjects import Subject

REFERENCE = "W3 reference GPTQ g64"


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
