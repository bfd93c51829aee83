"""Where the time of KWT-1 goes, by the runtimes' own profilers: FP32, INT8 everywhere, and INT8 of some layers only.

python benchmarks/runtimes/where_kwt1.py --out benchmarks/results/kwt1-where.json

One pinned core; two minutes. Of each node the 10th percentile of 60 runs, added up by kind; and, interleaved, the whole
model's p10 at batch 1 and 32 with the accuracy beside it. The profilers cost time of their own: shares are what they
are for.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1] / "quantization")]

from quantbench.subjects import SUBJECTS  # noqa: E402
from runtimebench import where  # noqa: E402
from runtimebench.contestants import COMPILED, Problem  # noqa: E402

from paredown.compressors import LayerSpec, compress, module_at  # noqa: E402
from paredown.evaluators import exclusive_slot, interleaved, pinned  # noqa: E402
from paredown.evaluators.latency import last_cores, machine_facts  # noqa: E402
from paredown.evaluators.runtimes import get_runtime  # noqa: E402

INT8 = LayerSpec(weight_bits=8, activation_bits=8)
PRODUCTS = LayerSpec(weight_bits=8, activation_bits=8, activation_scope="product")
WHICH: dict[str, tuple[str, ...]] = {
    "fp32": (),
    "int8": ("",),
    "int8 + products": ("",),
    "int8 mlp": (".fc1", ".fc2"),
    "int8 second of the mlp": (".fc2",),
    "int8 attention": (".q", ".k", ".v", ".out"),
}
"""Format -> parts of the names of the layers that are INT8."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=6.0, help="of timing all at batch 1; as much at 32")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with pinned(last_cores(1)), tempfile.TemporaryDirectory(prefix="paredown-bench-") as folder:
        rows = measure(Path(folder), arguments.seconds)
    found = {
        "command": "python " + shlex.join(["benchmarks/runtimes/where_kwt1.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine_facts(threads=1),
        "load": os.getloadavg()[0],
        "rows": rows,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    for row in rows:
        kinds = ", ".join(f"{kind} {ms:.3f}" for kind, ms in list(row["kinds_ms"].items())[:6])
        print(f"{row['name']:28} {row['ms_1']:.3f} {row['ms_32']:.2f} {row['accuracy']:.4f}  {kinds}")


def measure(folder: Path, seconds: float) -> list[dict[str, Any]]:
    problem = Problem.of(SUBJECTS["kwt1"]())
    subject, one = problem.subject, problem.subject.report.take(1).inputs
    rows, sessions = [], {}
    for runtime in COMPILED:
        for format, parts in WHICH.items():
            name = f"{runtime} {format}"
            layers = [x.fqn for x in problem.anatomy.layers if any(part in x.fqn for part in parts)]
            products = format.endswith("products")
            assignment = {x: PRODUCTS if products and problem.anatomy[x].product else INT8 for x in layers}
            variants = {
                fqn: compress(module_at(subject.model, fqn).weight.detach(), INT8, problem.anatomy[fqn])
                for fqn in layers
            }
            path = get_runtime(runtime).export(
                subject.model, assignment, variants, problem.calibration, subject.calibration[:2], folder / name
            )
            sessions[name] = get_runtime(runtime).load(path, threads=1)
            outputs = torch.cat([sessions[name].run(inputs) for inputs, _ in subject.report.batches(32)])
            profile = where.in_openvino if runtime == "openvino" else where.in_onnxruntime
            kinds = profile(path, one)
            rows.append(
                {
                    "name": name,
                    "n_int8_layers": len(layers),
                    "accuracy": float((outputs.argmax(-1) == subject.report.targets).double().mean()),
                    "kinds_ms": kinds,
                    "kernels_ms": round(sum(kinds.values()), 4),
                }
            )
    for batch in (1, 32):
        inputs = subject.report.take(batch).inputs
        timers = {name: (lambda s=session, x=inputs: s.run(x)) for name, session in sessions.items()}
        with exclusive_slot():
            taken = interleaved(timers, min_rounds=20, min_seconds=seconds, rng=np.random.default_rng(0))
        for row in rows:
            row[f"ms_{batch}"] = taken[row["name"]].measurement().value
    return rows


if __name__ == "__main__":
    main()
