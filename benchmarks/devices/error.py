"""How far the roofline is off: shipped profiles against a server core on which whole models were measured.

    python benchmarks/devices/error.py [--measured FILE]
    python benchmarks/devices/error.py --profiles openvino=machine.json --out FILE     # one of `paredown profile`'s

The profiles are those of the same class of CPU, as a stranger's would be; nothing is fitted here. Of ResNet-20 the
rates of `x86-64-onnxruntime` and `x86-64-openvino` were once estimated, so its rows say less than the others'.
The measured figures are in `measured.json`, which `measure.py` writes; the models are real ones, found by
PAREDOWN_ASSETS.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paredown.compressors import Anatomy, LayerSpec, trace_anatomy
from paredown.evaluators import modelled_latency_ms
from paredown.hardware_profiles import load_profile

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "search"), str(HERE.parents[1] / "examples" / "cifar10")]

FORMATS = {"fp32": LayerSpec(), "int8": LayerSpec(weight_bits=8, activation_bits=8)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, default=HERE / "measured.json")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "roofline.json")
    parser.add_argument("--profiles", nargs="*", default=[], help="RUNTIME=NAME|PATH; default x86-64-RUNTIME")
    args = parser.parse_args()
    measured = json.loads(args.measured.read_text())
    found = compare(measured, dict(text.split("=", 1) for text in args.profiles))
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    for row in found["rows"]:
        print(
            f"{row['model']:9} {row['runtime']:12} {row['format']}: measured {row['measured_ms']:.3g} ms, "
            f"modelled {row['modelled_ms']:.3g} ms, off by {row['error']:+.0%}"
        )
    print(f"median of the absolute error {found['median_error']:.0%}, largest {found['largest_error']:.0%}")


def compare(measured: dict[str, Any], profiles: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Each measured figure beside what the profile of its runtime says.

    profiles  runtime -> name or path; of the others the shipped one
    """
    used = {
        row["runtime"]: load_profile((profiles or {}).get(row["runtime"], f"x86-64-{row['runtime']}"))
        for row in measured["ms"]
    }
    anatomies = {name: _anatomy(name) for name in dict.fromkeys(row["model"] for row in measured["ms"])}
    rows = []
    for row in measured["ms"]:
        anatomy, spec = anatomies[row["model"]], FORMATS[row["format"]]
        profile = used[row["runtime"]]
        modelled = modelled_latency_ms(anatomy, dict.fromkeys(anatomy.fqns, spec), profile, boundaries=True).total_ms
        error = modelled / row["ms"] - 1.0
        names = {key: row[key] for key in ("model", "runtime", "format")}
        rows.append({**names, "measured_ms": row["ms"], "modelled_ms": round(modelled, 4), "error": round(error, 3)})
    apart = [abs(row["error"]) for row in rows]
    return {
        "machine": measured["machine"],
        "date": measured["date"],
        "profiles": {runtime: profile.name for runtime, profile in used.items()},
        "rows": rows,
        "median_error": round(statistics.median(apart), 3),
        "largest_error": max(apart),
    }


def _anatomy(name: str) -> Anatomy:
    from resnet import trained_resnet20
    from searchbench import sources

    builders = {
        "resnet20": (trained_resnet20, sources.cifar10),
        "dscnn": (sources.dscnn, sources.spoken_mfcc),
        "kwt1": (sources.kwt1, sources.spoken_frames),
    }
    model, data = builders[name]
    return trace_anatomy(model().eval(), data()["report"][0][:1])


if __name__ == "__main__":
    main()
