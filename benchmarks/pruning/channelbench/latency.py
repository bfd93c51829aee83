"""Removed models, measured: MACs, bytes of the file and latency together, with the profile's prediction beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import nn

from paredown.compressors import calibrate, trace_anatomy
from paredown.compressors.structure import score
from paredown.evaluators import aa_floor, exclusive_slot, interleaved, modelled_latency_ms
from paredown.evaluators.latency import compare
from paredown.evaluators.runtimes import export_model, get_runtime
from paredown.hardware_profiles import load_profile

from .quality import pruned_to
from .subjects import Prunable

RUNTIMES = {"openvino": "x86-64-openvino", "onnxruntime": "x86-64-onnxruntime"}
BATCHES = (1, 8, 32)
SPEED_UPS = ((1.5, 1), (2.0, 1), (2.0, 8))
"""(times fewer MACs, channels rounded to)."""


def latency(prunable: Prunable, *, seconds: float, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Each removed model against the original, interleaved in each runtime at each batch. Alone on a pinned core."""
    scores = {s.name: score(prunable.model, s, "l2") for s in prunable.sets}
    rows = []
    for speed_up, round_to in SPEED_UPS:
        target = prunable.anatomy.macs / speed_up
        small, n_macs = pruned_to(prunable, scores, "uniform", target, round_to=round_to)
        for runtime, profile in RUNTIMES.items():
            row = {"speed_up": prunable.anatomy.macs / n_macs, "round_to": round_to, "runtime": runtime}
            row |= _compared(prunable, small, runtime, profile, seconds)
            rows.append(row)
            say(
                f"  {row['speed_up']:.2f} x fewer MACs (round to {round_to}), {runtime}: "
                + ", ".join(
                    f"batch {b}: {r['faster']:.2f} x ({r['modelled']:.2f} modelled)" for b, r in row["batch"].items()
                )
                + f"; file {row['file_ratio']:.2f} x smaller"
            )
    return rows


def _compared(prunable: Prunable, small: nn.Module, runtime: str, profile: str, seconds: float) -> dict[str, Any]:
    inputs = prunable.subject.calibration
    rng = np.random.default_rng(0)
    models = {"original": prunable.model, "removed": small}
    anatomies = {name: trace_anatomy(model, inputs[:1]) for name, model in models.items()}
    loaded_profile = load_profile(profile)
    with TemporaryDirectory() as folder:
        paths = {}
        for name, model in models.items():
            home = Path(folder) / name
            home.mkdir()
            calibration = calibrate(model, [inputs[:32]], anatomies[name])
            paths[name] = export_model(
                get_runtime(runtime).format, model, {}, {}, calibration, inputs[:2], home, anatomy=anatomies[name],
                runtime=runtime,
            )  # fmt: skip
        sizes = {
            name: sum(f.stat().st_size for f in path.parent.rglob("*") if f.is_file()) for name, path in paths.items()
        }
        with exclusive_slot():
            sessions = {name: get_runtime(runtime).load(path, threads=1) for name, path in paths.items()}
            batches = {}
            for batch in BATCHES:
                x = inputs[:batch].contiguous()
                timers = {name: lambda s=session, x=x: s.run(x) for name, session in sessions.items()}
                floor = aa_floor(timers["original"], rng=rng)
                samples = interleaved(timers, min_seconds=seconds, rng=rng)
                compared = compare(samples["removed"], samples["original"], floor=floor)
                modelled = {
                    name: modelled_latency_ms(a, {}, loaded_profile, batch=batch).total_ms
                    for name, a in anatomies.items()
                }
                batches[batch] = {
                    "faster": 1 / compared.ratio, "low": 1 / compared.high, "high": 1 / compared.low,
                    "verdict": compared.verdict, "floor": floor,
                    "original_ms": samples["original"].percentile(10), "removed_ms": samples["removed"].percentile(10),
                    "modelled": modelled["original"] / modelled["removed"],
                }  # fmt: skip
    return {"batch": batches, "file_ratio": sizes["original"] / sizes["removed"], "file_bytes": sizes}
