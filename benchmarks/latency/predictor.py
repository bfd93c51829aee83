"""How well latency is predicted on configurations that were never measured, beside operations, lone layers, a roofline.

python benchmarks/latency/predictor.py --out runs/latency --configs 200       # 6 nets × runtimes, on a quiet machine
python benchmarks/latency/predictor.py --out runs/latency --configs 20 --models dscnn --runtimes openvino   # a look

Every measured configuration is one line of OUT/NET-RUNTIME.jsonl, written when it is known: run again to go on. The
summary is OUT/predictor.json. Reference and configuration are interleaved; every fourth configuration is built, loaded
and measured a second time at the end, and how far the two lie apart is the noise floor.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from paredown.compressors import trace_anatomy

sys.path.insert(0, str(Path(__file__).parent))

from latencybench import models, rivals

from paredown.compressors import LayerSpec, applicable, calibrate, model_digest
from paredown.evaluators import exclusive_slot, pinned
from paredown.evaluators.latency import last_cores
from paredown.evaluators.prediction import Bed, Form, LatencyTable, Template, draw, measure_table, offers_of

SPECS = (
    LayerSpec(),
    LayerSpec(weight_bits=8, activation_bits=8),
    LayerSpec(weight_bits=4),
    LayerSpec(rank=0.5),
    LayerSpec(rank=0.25),
    LayerSpec(rank=0.25, activation_bits=8),
)
GOALS = {"mape_beyond_noise": 0.02, "within_5": 0.96, "within_10": 0.995, "spearman": 0.997, "minutes": 10.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--configs", type=int, default=200)
    parser.add_argument("--train", type=int, default=80, help="models that the predictor may measure")
    parser.add_argument("--train-seconds", type=float, default=300.0)
    parser.add_argument("--models", nargs="*", default=list(models.MODELS), choices=list(models.MODELS))
    parser.add_argument("--runtimes", nargs="*", default=["openvino", "onnxruntime"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    summary_path = arguments.out / "predictor.json"
    summary = json.loads(summary_path.read_text()) if summary_path.exists() else {"goals": GOALS, "nets": {}}
    with pinned(last_cores(1)):
        for name in arguments.models:
            for runtime in arguments.runtimes:
                summary["nets"][f"{name} {runtime}"] = one(name, runtime, arguments)
                summary["command"] = "python benchmarks/latency/predictor.py " + " ".join(sys.argv[1:])
                summary["date"] = datetime.datetime.now(datetime.UTC).date().isoformat()
                summary_path.write_text(json.dumps(summary, indent=1) + "\n")
                errors_of = summary["nets"][f"{name} {runtime}"]["errors"]
                print(name, runtime, json.dumps(errors_of["predictor"]), flush=True)
                print("  Spearman that the noise allows:", json.dumps(errors_of["spearman_ceiling"]), flush=True)


def one(name: str, runtime: str, arguments: argparse.Namespace) -> dict[str, Any]:
    model, inputs = models.load(name)
    anatomy = trace_anatomy(model, inputs[:1])
    calibration = calibrate(model, [inputs], anatomy)
    groups = [((layer.fqn,), [s for s in SPECS if applicable(s, layer) is None]) for layer in anatomy.layers]
    path = arguments.out / f"{name}-{runtime}"
    if not path.with_suffix(".table.json").exists():
        table = measure_table(
            model, anatomy, calibration, inputs[:2], groups, runtime=runtime, threads=1, digest=model_digest(model),
            n_models=arguments.train, max_seconds=arguments.train_seconds,
        )  # fmt: skip
        table.save(path.with_suffix(".table.json"))
    table = LatencyTable.load(path.with_suffix(".table.json"))
    layout = table.layout
    offers = offers_of(anatomy, groups)
    seen = {m.forms for m in table.measured} | {layout.forms({})}
    rng = np.random.default_rng(1_000_003)  # not the campaign's seed: these are configurations that it never saw
    unseen: list[tuple[Form, ...]] = []
    while len(unseen) < arguments.configs:
        for levels in draw([len(offer) for offer in offers], arguments.configs, rng):
            forms = layout.forms({f: x for offer, n in zip(offers, levels, strict=True) for f, x in offer[n].items()})
            if forms not in seen and len(unseen) < arguments.configs:
                seen.add(forms)
                unseen.append(forms)
    rows, lone, wall = measured(path, model, anatomy, calibration, inputs, layout, unseen, table, runtime)
    return {
        "machine": dict(table.machine), "original_ms": table.original_ms, "n_train": len(table.measured),
        "n_test": len(unseen), "profiling_minutes": round(table.seconds / 60, 2),
        "left_out": vars_of(table.quality()), "scales": dict(table.scales), "test_minutes": round(wall / 60, 2),
        "errors": errors(anatomy, layout, table, unseen, rows, lone, runtime),
    }  # fmt: skip


def measured(
    path: Path, model: Any, anatomy: Any, calibration: Any, inputs: Any, layout: Any, unseen: Sequence[Any],
    table: LatencyTable, runtime: str,
) -> tuple[dict[str, dict[str, Any]], dict[str, float], float]:  # fmt: skip
    """Every test configuration, what is already in the file taken from there; then the second measurements."""
    log = path.with_suffix(".jsonl")
    rows: dict[str, dict[str, Any]] = {}
    for line in log.read_text().splitlines() if log.exists() else ():
        row = json.loads(line)
        rows[row["key"]] = row
    todo = [(f"{n}", forms) for n, forms in enumerate(unseen)]
    todo += [(f"{n} again", forms) for n, forms in enumerate(unseen) if n % 4 == 0]
    start = time.monotonic()
    lone_path = path.with_suffix(".lone.json")
    if not lone_path.exists():
        known = [*unseen, *(m.forms for m in table.measured)]
        with exclusive_slot():
            lone = rivals.lone_layers(model, anatomy, layout, inputs, known, runtime)
        lone_path.write_text(json.dumps(lone, indent=1))
    if any(key not in rows for key, _ in todo):
        template = Template.trace(model, anatomy, calibration, inputs[:2])
        bed = Bed(template, inputs[:1], runtime=runtime, threads=1, seed=1)
        with log.open("a") as file:
            for key, forms in todo:
                if key in rows:
                    continue
                with exclusive_slot():
                    timed = bed.time(dict(zip(layout.fqns, forms, strict=True)))
                rows[key] = {"key": key, "forms": [f.label() for f in forms], **timed.to_dict()}
                file.write(json.dumps(rows[key]) + "\n")
                file.flush()
        bed.close()
    return rows, json.loads(lone_path.read_text()), time.monotonic() - start


def errors(
    anatomy: Any, layout: Any, table: LatencyTable, unseen: Sequence[Any], rows: dict[str, Any], lone: Any, runtime: str
) -> dict[str, Any]:
    y = np.array([rows[f"{n}"]["ratio"] for n in range(len(unseen))])
    train, ratios = [m.forms for m in table.measured], np.array([m.ratio for m in table.measured])
    twice = [(rows[f"{n}"]["ratio"], rows[f"{n} again"]["ratio"]) for n in range(0, len(unseen), 4)]
    noise = float(np.mean([abs(a - b) / (np.sqrt(2) * min(a, b)) for a, b in twice]))
    mean, deviation = table.ratios([dict(zip(layout.fqns, forms, strict=True)) for forms in unseen])
    both = [*train, *unseen]
    n = len(train)
    found: dict[str, Any] = {"noise_floor": round(noise, 5), "predictor": scores(mean, y, noise)}
    found["spearman_ceiling"] = spearman_ceiling(y, twice)
    found["spread"] = [round(float(np.quantile(y, q)), 4) for q in (0.05, 0.5, 0.95)]
    found["predictor"]["covered_95"] = round(float((np.abs(mean - y) <= 1.96 * deviation).mean()), 4)
    for label, said in (
        ("operations", rivals.by_operations(anatomy, layout, both)),
        ("lone layers", rivals.by_lone_layers(layout, both, lone, table.original_ms)),
        ("roofline", rivals.by_roofline(anatomy, layout, both, runtime)),
    ):
        found[label] = scores(said[n:], y, noise)
        found[f"{label}, fitted"] = scores(rivals.with_a_line(said[n:], said[:n], ratios), y, noise)
    return found


def spearman_ceiling(y: np.ndarray, twice: Sequence[tuple[float, float]], draws: int = 400) -> dict[str, float]:
    """What the rank correlation with these measurements would be of someone who knows the true latencies.

    y      measured once; twice: those that were built, loaded and measured once more
    value  mean over draws: the measured spread without the noise that is in it, ranked against the same with noise
    low    of one draw in forty; above it a figure cannot be told from the ceiling
    noise  standard deviation of one measurement's logarithm, from the pairs: their medians, for one pair in fifty that
           met a neighbour must not make the ceiling
    """
    apart = np.abs([np.log(a / b) for a, b in twice])
    noise = float(np.median(apart)) / 0.6745 / np.sqrt(2)
    logs = np.log(y)
    share = max(0.0, 1.0 - noise**2 / max(float(logs.var()), 1e-30))
    truth = logs.mean() + (logs - logs.mean()) * np.sqrt(share)
    rng = np.random.default_rng(0)
    found = [float(spearmanr(truth, truth + noise * rng.standard_normal(len(y)))[0]) for _ in range(draws)]
    return {
        "value": round(float(np.mean(found)), 4), "low": round(float(np.quantile(found, 0.025)), 4),
        "noise": round(noise, 5),
    }  # fmt: skip


def scores(said: np.ndarray, y: np.ndarray, noise: float) -> dict[str, float]:
    apart = np.abs(said / y - 1.0)
    rank = float(spearmanr(said, y)[0]) if np.ptp(said) > 0 else 0.0
    return {
        "mape": round(float(apart.mean()), 5), "mape_beyond_noise": round(max(0.0, float(apart.mean()) - noise), 5),
        "within_5": round(float((apart <= 0.05).mean()), 4), "within_10": round(float((apart <= 0.10).mean()), 4),
        "worst": round(float(apart.max()), 4), "spearman": round(rank, 4),
    }  # fmt: skip


def vars_of(quality: Any) -> dict[str, float]:
    return {name: getattr(quality, name) for name in quality.__dataclass_fields__}


if __name__ == "__main__":
    main()
