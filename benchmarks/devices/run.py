"""One search of ResNet-20, looked at from several devices: what each would pick, and why the picks differ.

    python benchmarks/devices/run.py [--trials 60] [--run FOLDER] [--out FILE]

None of the devices is here: latencies, energies and memory are modelled from their profiles, and only the qualities are
measured. All devices share one set of evaluations, so the script takes no longer than one small search.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paredown.compressors import Anatomy, LayerSpec
from paredown.errors import LimitsNotMet
from paredown.evaluators import roofline
from paredown.hardware_profiles import load_profile
from paredown.search import Front, Point, Run, Task, open_run, resolve, search

HERE = Path(__file__).parent
TASK = HERE.parents[1] / "examples" / "cifar10" / "task.toml"
DEVICES = (
    "arm-cortex-a76-phone",
    "arm-cortex-m7-cmsis-nn",
    "nvidia-jetson-orin-tensorrt",
    "nvidia-h100-tensorrt",
)
OTHERS = ("nvidia-h200-tensorrt", "raspberry-pi-5-onnxruntime", "tpu-like")
"""Nobody thought of these when the search ran; its trials answer for them too."""

SETTINGS = (
    "hardware.runtime=torch",
    f"hardware.profile={json.dumps(DEVICES)}",
    'objectives.names=["accuracy", "latency_ms", "bytes"]',
    "space.weight_bits=[4, 6, 8, 32]",
    "space.rank=[1.0, 0.5, 0.25]",
    "limits.bytes.max_ratio=1.0",
    "limits.energy_mj.max_ratio=1.0",
    "limits.peak_activation_bytes.max_ratio=1.0",
    "search.samples=1000",
    "mlflow.enabled=false",
)
LOSS = 0.01
"""Of accuracy, at most, on the search split."""
TIE = 0.03
"""Latencies that are nearer than this to the least are taken for the same; of those the most accurate is picked."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--run", type=Path, help="folder of the run; default: one that is thrown away")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "devices.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="paredown-devices-") as folder:
        found = compare(args.run or Path(folder) / "run", args.trials)
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    for line in table(found):
        print(line)


def compare(folder: Path, trials: int) -> dict[str, Any]:
    """Search (or read the run that is there), and look at it from each device."""
    if not (folder / "task.json").exists():
        task = Task.load(TASK).with_overrides([*SETTINGS, f"budget.trials={trials}"])
        search(task, out=folder, workers=0)
    run = open_run(folder)
    anatomy = run.facts().anatomy
    assert anatomy is not None
    devices = {name: _device(run, run.front(all=True, profile=name), anatomy, name) for name in (*DEVICES, *OTHERS)}
    return {
        "model": "ResNet-20, CIFAR-10",
        "trials": trials,
        "note": f"modelled from profiles, nothing measured on these devices. pick: of all trials that lose {LOSS:g} "
        f"accuracy at most on the search split, and are within {TIE:.0%} of the least latency, the most accurate. "
        "foreseen: what `paredown resolve --profile` gives for the least latency within the same loss; not evaluated",
        "devices": devices,
    }


def _device(run: Run, front: Front, anatomy: Anatomy, name: str) -> dict[str, Any]:
    original = front.original
    least = original.search_metrics["accuracy"].value - LOSS
    good = [p for p in front.points if p.kind != "original" and p.search_metrics["accuracy"].value >= least]
    fastest = min(p.search_metrics["latency_ms"].value for p in good)
    close = [p for p in good if p.search_metrics["latency_ms"].value <= fastest * (1 + TIE)]
    picked = max(close, key=lambda p: (p.search_metrics["accuracy"].value, -p.search_metrics["bytes"].value))
    return {
        "original": _figures(original),
        "bound_by": _bound_by(anatomy, name),
        "pick": {"id": picked.id, "kind": picked.kind, **_figures(picked), "layers": _layers(picked.config)},
        "foreseen": _foreseen(run, name, least),
        "faster": original.search_metrics["latency_ms"].value / picked.search_metrics["latency_ms"].value,
        "notes": _fits(original, picked, name),
    }


def _foreseen(run: Run, name: str, least: float) -> dict[str, Any] | None:
    """None where nothing is foreseen to be as good."""
    try:
        point = resolve(run, limits=f"accuracy>={least}", profile=name).points[0]
    except LimitsNotMet:
        return None
    names = ("accuracy", "bytes", "latency_ms", "energy_mj")
    figures = {key: {"value": point.metrics[key].value, "source": point.metrics[key].source} for key in names}
    return {**figures, "layers": _layers(point.config)}


def _figures(point: Point) -> dict[str, Any]:
    names = ("accuracy", "bytes", "latency_ms", "energy_mj", "peak_activation_bytes")
    return {name: {"value": m.value, "source": m.source} for name in names if (m := point.search_metrics.get(name))}


def _layers(config: Mapping[str, Any]) -> dict[str, int]:
    """Label of a spec -> layers that have it."""
    labels = Counter(LayerSpec.from_dict(spec).label() for spec in config["layers"].values())
    return dict(sorted(labels.items(), key=lambda item: -item[1]))


def _bound_by(anatomy: Anatomy, name: str) -> dict[str, float]:
    """Shares of the FP32 original's time: arithmetic or traffic, whichever is the longer in a layer, and overhead."""
    profile = load_profile(name)
    times: Counter[str] = Counter()
    for layer in anatomy.layers:
        part = roofline(anatomy, layer, LayerSpec(), profile)
        longer = "arithmetic" if part.compute_ms >= part.traffic_ms else "traffic"
        times[longer] += max(part.compute_ms, part.traffic_ms)
        times["overhead"] += part.overhead_ms
    total = sum(times.values())
    return {what: round(ms / total, 3) for what, ms in times.items()}


def _fits(original: Point, picked: Point, name: str) -> list[str]:
    profile, lines = load_profile(name), []
    for point, what in ((original, "the original"), (picked, "the pick")):
        sizes = {"memory_bytes": "peak_activation_bytes", "storage_bytes": "bytes"}
        for room, metric in sizes.items():
            figure = getattr(profile, room)
            if figure is not None and (need := point.search_metrics[metric].value) > figure.value:
                lines.append(f"{what} does not fit: {metric} {need:.0f}, {room} {figure.value:.0f}")
    return lines


def table(found: dict[str, Any]) -> list[str]:
    """The same for a terminal."""
    lines = []
    for name, device in found["devices"].items():
        pick, original = device["pick"], device["original"]
        bound = ", ".join(f"{what} {share:.0%}" for what, share in device["bound_by"].items())
        figures = (
            f"  pick {pick['id']} ({pick['kind']}): {pick['latency_ms']['value']:.4g} ms modelled, "
            f"{device['faster']:.2f} times faster; {pick['bytes']['value']:.0f} B; "
            f"{pick['energy_mj']['value']:.3g} mJ modelled (FP32 {original['energy_mj']['value']:.3g}); "
            f"accuracy {pick['accuracy']['value']:.4f} of {original['accuracy']['value']:.4f}"
        )
        lines += [
            f"{name}: FP32 {original['latency_ms']['value']:.4g} ms modelled ({bound})",
            figures,
            f"    {_words(pick['layers'])}",
            *_foreseen_lines(device),
            *(f"  {note}" for note in device["notes"]),
        ]
    return lines


def _foreseen_lines(device: dict[str, Any]) -> list[str]:
    found = device["foreseen"]
    if found is None:
        return ["  resolve foresees nothing that good"]
    figures = (
        f"  foreseen by resolve: {found['latency_ms']['value']:.4g} ms modelled, {found['bytes']['value']:.0f} B, "
        f"accuracy {found['accuracy']['value']:.4f} predicted"
    )
    return [figures, f"    {_words(found['layers'])}"]


def _words(layers: dict[str, int]) -> str:
    return ", ".join(f"{n} x {label}" for label, n in layers.items())


if __name__ == "__main__":
    main()
