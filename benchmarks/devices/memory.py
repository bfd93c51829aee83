"""Peak activations by liveness, against what the runtime's process really grows by.

    python benchmarks/devices/memory.py                     # about 4 minutes; times nothing, so a busy machine will do

Each net is run at two batches in fresh processes (`peak_memory`). Weights, kernels and the runtime's own structures are
the same in both, so the difference is what the activations of the further samples take; liveness foretells it by the
sample. It is looked at after one run, and after three: ONNX Runtime takes a block for all buffers from the second run
on, and keeps those of the first. INT8 is foretold in the widths that the shipped profile says the runtime runs in.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from paredown.compressors import trace_anatomy

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "latency"), str(HERE.parent / "search")]

from latencybench import models  # noqa: E402

from paredown.compressors import LayerSpec, calibrate  # noqa: E402
from paredown.evaluators import trace_activations  # noqa: E402
from paredown.evaluators.latency import cpu_model, peak_memory  # noqa: E402
from paredown.evaluators.memory import activation_peak  # noqa: E402
from paredown.evaluators.prediction import (  # noqa: E402
    Template,
    forms_of,
)
from paredown.hardware_profiles import load_profile  # noqa: E402

RUNTIMES = ("onnxruntime", "openvino")
SPECS = {"fp32": LayerSpec(), "int8": LayerSpec(weight_bits=8, activation_bits=8)}
RUNS = 3
SMALL, LARGE = 64, 320
"""Both large enough that the peak lies in the runs and not in the loading."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "memory.json")
    parser.add_argument("--models", nargs="*", default=list(models.MODELS), choices=list(models.MODELS))
    parser.add_argument("--runtimes", nargs="*", default=list(RUNTIMES), choices=list(RUNTIMES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for name in arguments.models for row in measured(name, arguments.runtimes)]
    apart = [abs(row["error"]) for row in rows]
    found = {
        "command": "python benchmarks/devices/memory.py " + " ".join(sys.argv[1:]),
        "machine": cpu_model(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "batches": [SMALL, LARGE],
        "rows": rows,
        "median_error": round(statistics.median(apart), 3),
        "largest_error": max(apart),
    }
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"median of the absolute error {found['median_error']:.0%}, largest {found['largest_error']:.0%}")


def measured(name: str, runtimes: list[str]) -> list[dict[str, Any]]:
    model, inputs = models.load(name)
    anatomy = trace_anatomy(model, inputs[:1])
    graph = trace_activations(model, inputs[:1], anatomy)
    template = Template.trace(model, anatomy, calibrate(model, [inputs], anatomy), inputs[:2])
    rows = []
    for runtime in runtimes:
        profile = load_profile(f"x86-64-{runtime}")
        for form, spec in SPECS.items():
            assignment = dict.fromkeys(anatomy.fqns, spec)
            foretold = activation_peak(anatomy, assignment, profile, graph).bytes
            with tempfile.TemporaryDirectory(prefix="paredown-") as folder:
                path = Path(folder) / "model.onnx"
                template.write(forms_of(anatomy, assignment), path, guarded=runtime == "onnxruntime")
                grown = {runs: _grown(path, runtime, inputs, runs) for runs in (1, RUNS)}
            rows.append(
                {
                    "model": name, "runtime": runtime, "format": form, "foretold_bytes": foretold,
                    "first_run_bytes": round(grown[1]), "later_bytes": round(grown[RUNS]),
                    "error": round(foretold / grown[1] - 1.0, 3), "later_error": round(foretold / grown[RUNS] - 1.0, 3),
                }
            )  # fmt: skip
            print(
                f"{name:9} {runtime:12} {form}: foretold {foretold / 1e3:.1f} kB a sample, first run "
                f"{grown[1] / 1e3:.1f} ({rows[-1]['error']:+.0%}), later {grown[RUNS] / 1e3:.1f} "
                f"({rows[-1]['later_error']:+.0%})", flush=True,
            )  # fmt: skip
    return rows


def _grown(path: Path, runtime: str, inputs: torch.Tensor, runs: int) -> float:
    """Bytes for each further sample."""
    small, large = (peak_memory(path, runtime, _batch(inputs, n), runs=runs).value for n in (SMALL, LARGE))
    return (large - small) / (LARGE - SMALL)


def _batch(inputs: torch.Tensor, n: int) -> torch.Tensor:
    return inputs.repeat(-(-n // len(inputs)), *[1] * (inputs.ndim - 1))[:n].contiguous()


if __name__ == "__main__":
    main()
