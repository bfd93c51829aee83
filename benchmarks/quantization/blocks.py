"""Block reconstruction: quality with it and without it, beside the repairs of biases and batch norms.

OMP_NUM_THREADS=1 python benchmarks/quantization/blocks.py --out benchmarks/results/blocks.json

Every layer in 4, 3 and 2 bits, one scale an output channel. Learned on 512 calibration samples (64 of the keyword
nets), a fifth of which is held out. `gain` is against the original, `over` against the same setting as it was, both
paired, on the report part. Not a timing, so the machine need not be idle; deterministic. Some two minutes of one thread
for a setting of ResNet-20; what is in the file already is left as it is.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from quantbench.bench import Bench
from quantbench.machine import machine
from quantbench.subjects import SUBJECTS
from torch import Tensor

from paredown.compressors import LayerSpec, reconstruct
from paredown.evaluators import paired_test

SCHEMA_VERSION = 1
OUT = "benchmarks/results/blocks.json"
SETTINGS = {
    **{
        f"W{bits} {method}": LayerSpec(weight_bits=bits, weight_method=method)
        for bits in (4, 3, 2)
        for method in ("affine", "gptq")
    },
    "W4A4 gptq": LayerSpec(weight_bits=4, activation_bits=4, weight_method="gptq"),
}
SAMPLES, BATCH = 512, 32


def measured(bench: Bench, spec: LayerSpec) -> dict[str, Any]:
    """The setting as it is, with repaired biases and batch norms, and with reconstructed blocks."""
    assignment, variants, _ = bench.compressed(spec)
    seen = bench.subject.calibration
    order = torch.randperm(len(seen), generator=torch.Generator().manual_seed(0))[:SAMPLES]
    batches = list(seen[order].split(max(1, min(BATCH, len(order) // 5))))
    found = reconstruct(bench.resident, assignment, variants, batches, divergence=bench.divergence)
    ways: dict[str, tuple[Any, Mapping[str, Tensor]]] = {"as it is": (variants, {})}
    if (values := bench.repaired(assignment, variants, norms=True)) is not None:
        ways["bias, norms"] = (variants, values)
    ways["blocks"] = (found.variants, found.values)
    rows: dict[str, Any] = {}
    plain: Tensor | None = None
    for way, (which, values) in ways.items():
        scores, apart = bench.run(assignment, which, values)
        plain = scores if plain is None else plain
        over = paired_test(scores, plain, bench.metric)
        rows[way] = {
            **bench.against_original(scores), "search_divergence": apart, "bytes": bench.bytes_of(assignment, which),
            "over": {"gain": over.difference, "low": over.low, "high": over.high},
        }  # fmt: skip
    rows["blocks"] |= {"held_out": found.ratio, "kept": found.kept, "notes": found.notes()}
    rows["blocks"]["blocks"] = {one.block.fqn: [round(one.ratio, 4), one.kept] for one in found.blocks}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(SUBJECTS), default=["resnet20", "dscnn"])
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "models": {}}
    if arguments.out.is_file():
        result = json.loads(arguments.out.read_text())
        if result.get("schema_version") != SCHEMA_VERSION:
            parser.error(f"{arguments.out} was made by another version of this benchmark; delete it, or choose another")
    for name in arguments.models:
        rows = result["models"].setdefault(name, {})
        missing = [setting for setting in arguments.settings if setting not in rows]
        bench = Bench(SUBJECTS[name]()) if missing else None
        for setting in missing:
            assert bench is not None
            options = ["--models", name, "--settings", setting]
            rows[setting] = {
                "ways": measured(bench, SETTINGS[setting]), "original": bench.value(bench.original),
                "metric": bench.subject.metric, "n_search": len(bench.subject.search),
                "n_report": len(bench.subject.report), "machine": machine(arguments.threads),
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                "command": shlex.join(["python", "benchmarks/quantization/blocks.py", *options, "--out", OUT]),
            }  # fmt: skip
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(result, indent=1) + "\n")  # not lost if the next one fails
            for way, row in rows[setting]["ways"].items():
                over = row["over"]
                line = f"{name:9} {setting:10} {way:12} {row['value']:.4f} {row['search_divergence']:.5f}"
                print(
                    f"{line} {over['gain']:+.4f} [{over['low']:+.4f}, {over['high']:+.4f}]", file=sys.stderr, flush=True
                )


if __name__ == "__main__":
    main()
